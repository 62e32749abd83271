"""What a prediction leaves behind: a folder per case, a JSON line for each, a list of those that failed."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from medbundles.atomic import replacing, write_text
from medbundles.report import FIGURE_DPI
from medbundles.tables import write_json
from numpy.typing import NDArray

from rect_vlm.case_sources import PREDICTION
from rect_vlm.lesion_maps import LesionMaps
from rect_vlm.records import describe

if TYPE_CHECKING:
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)

LINES, FAILED, PAGE = "predictions.jsonl", "failed.json", "predictions.html"
MASK, PICTURE, PROBABILITIES = "lesions.nii.gz", "slices.jpg", "probabilities"
Row = dict[str, Any]


@dataclass(frozen=True)
class CaseResult:
    """Everything that is written for one case."""

    prediction: Row
    maps: LesionMaps
    picture: Figure | None


class PredictionFolder:
    """A folder per case, and `predictions.jsonl` and `failed.json` beside them.

    Every file is replaced in one step. `prediction.json` is written last: a folder that has it is complete.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).expanduser().absolute()
        self.failures: list[Row] = []

    def case(self, name: str) -> Path:
        """Folder of a case; ValueError for an id that cannot be the name of one."""
        if not re.fullmatch(r"\w[\w .+-]*", name):
            raise ValueError(
                f"an id must do as the name of a folder (letters, digits, space, . _ + -), got {name!r}"
            )
        return self.folder / name

    def finished(self, name: str, fingerprint: str, wanted: Sequence[str]) -> Row | None:
        """The prediction of an earlier run with the same fingerprint, if all wanted files are there."""
        folder = self.case(name)
        try:
            row = json.loads((folder / PREDICTION).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError as error:
            logger.warning("%s is not readable and will be written anew: %s", folder / PREDICTION, error)
            return None
        complete = all((folder / file).exists() for file in (MASK, *wanted))
        return row if complete and row.get("fingerprint") == fingerprint else None

    def start(self, finished: Iterable[Row]) -> None:
        """Write the lines of the cases that are finished; nothing has failed yet."""
        self.failures = []
        self._write_lines(finished)

    def save(self, result: CaseResult) -> None:
        """Write one case and add its line; OSError naming the file that cannot be written."""
        row, maps = result.prediction, result.maps
        folder = self.case(row["id"])
        (folder / PREDICTION).unlink(missing_ok=True)
        _save_nifti(folder / MASK, maps.labels, maps.affine)
        for lesion, found in maps.probabilities.items():
            _save_nifti(folder / PROBABILITIES / f"{lesion}.nii.gz", found, maps.affine)
        if result.picture is not None:
            with replacing(folder / PICTURE) as temporary:
                result.picture.savefig(temporary, dpi=FIGURE_DPI, pil_kwargs={"quality": 90})
        write_json(folder / PREDICTION, row)
        with (self.folder / LINES).open("a", encoding="utf-8") as file:
            file.write(_line(row))

    def fail(self, case: Mapping[str, Any], reason: str) -> None:
        """Log a case that could not be read and put it on the list in failed.json."""
        logger.error("%s failed: %s", describe(case), reason)
        self.failures.append({"id": case["id"], "image": case["image"], "error": reason})
        write_json(self.folder / FAILED, self.failures)

    def finish(self, order: Sequence[str]) -> list[Row]:
        """Write the lines once more, in the order of the ids, and return them as rows."""
        failed = {failure["id"] for failure in self.failures}
        paths = [self.case(name) / PREDICTION for name in order if name not in failed]
        rows = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
        self._write_lines(rows)
        if not self.failures:
            (self.folder / FAILED).unlink(missing_ok=True)
        return rows

    def _write_lines(self, rows: Iterable[Row]) -> None:
        write_text(self.folder / LINES, "".join(map(_line, rows)))


def _line(row: Row) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"


def _save_nifti(path: Path, array: NDArray, affine: NDArray[np.float64]) -> None:
    import nibabel as nib

    image = nib.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    with replacing(path) as temporary:
        nib.save(image, temporary)
