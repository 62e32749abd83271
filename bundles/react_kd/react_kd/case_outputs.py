"""What a prediction leaves behind: a folder per case, tables over all cases, a list of those that failed."""

from __future__ import annotations

import csv
import io
import json
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from medbundles.atomic import replacing, write_text
from medbundles.report import save_figure
from numpy.typing import NDArray

from react_kd.case_sources import PREDICTION
from react_kd.cases import FILE_KEYS, describe

if TYPE_CHECKING:
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)

MAPS = ("topo_gradcam", "topo_gradcam_std", "gradcam")
Row = dict[str, Any]


@dataclass(frozen=True)
class CaseResult:
    """Everything that is written for one case."""

    prediction: Row
    regions: Row
    maps: Mapping[str, NDArray]  # (X, Y, Z) in the CT's space, by names of MAPS
    affine: NDArray  # (4, 4), voxel to world, mm
    overlay: Figure | None


class PredictionFolder:
    """A folder per scan_id, and `predictions.csv`, `predictions.jsonl` and `failed.json` beside them.

    Every file is replaced in one step. `prediction.json` is written last: a folder that has it is complete.
    """

    def __init__(self, folder: str | Path, classes: Sequence[str]) -> None:
        self.folder, self.classes = Path(folder).expanduser().absolute(), tuple(classes)
        self.failures: list[Row] = []

    def start(self, finished: Iterable[Row]) -> None:
        """Write the tables of the cases that are finished; nothing has failed yet."""
        self.failures = []
        self._write_tables(finished)

    def finished(self, scan_id: str, fingerprint: str) -> Row | None:
        """The prediction of an earlier run, if its fingerprint is the same.

        Raises ValueError for a scan_id that cannot be the name of a folder.
        """
        path = self._case_folder(scan_id) / PREDICTION
        try:
            row = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError as error:
            logger.warning("%s is not readable and will be written anew: %s", path, error)
            return None
        return row if row.get("fingerprint") == fingerprint else None

    def save(self, result: CaseResult) -> None:
        """Write one case and add it to the tables; OSError naming the file that cannot be written."""
        row = result.prediction
        folder = self._case_folder(row["scan_id"])
        for name in MAPS:
            path = folder / f"{name}.nii.gz"
            if name in result.maps:
                _save_nifti(path, result.maps[name], result.affine)
            else:  # of an earlier run, when the case had masks or PET
                path.unlink(missing_ok=True)
        if result.overlay is not None:
            save_figure(result.overlay, folder / "overlay.png")
        write_text(folder / "regions.json", json.dumps(result.regions, indent=1) + "\n")
        write_text(folder / PREDICTION, json.dumps(row, indent=1) + "\n")
        with (self.folder / "predictions.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        with (self.folder / "predictions.csv").open("a", encoding="utf-8", newline="") as file:
            csv.writer(file).writerow(self._cells(row).values())

    def fail(self, case: Mapping[str, Any], reason: str) -> None:
        """Log a case that could not be predicted and put it on the list in failed.json."""
        logger.error("%s failed: %s", describe(case), reason)
        files = {key: str(case[key]) for key in FILE_KEYS if case.get(key)}
        self.failures.append({"scan_id": case.get("scan_id"), "files": files, "error": reason})
        self._write_failures()

    def finish(self, order: Sequence[str]) -> None:
        """Write the tables once more, in the order of the scan_ids; failed.json stays only with a failure."""
        failed = {failure["scan_id"] for failure in self.failures}
        paths = [self._case_folder(scan) / PREDICTION for scan in order if scan not in failed]
        self._write_tables(json.loads(path.read_text(encoding="utf-8")) for path in paths)
        self._write_failures()

    def _write_failures(self) -> None:
        path = self.folder / "failed.json"
        if self.failures:
            write_text(path, json.dumps(self.failures, indent=1) + "\n")
        else:
            path.unlink(missing_ok=True)

    def _write_tables(self, rows: Iterable[Row]) -> None:
        rows = list(rows)
        text = io.StringIO()
        table = csv.DictWriter(text, self._columns())
        table.writeheader()
        table.writerows(self._cells(row) for row in rows)
        write_text(self.folder / "predictions.csv", text.getvalue())
        write_text(self.folder / "predictions.jsonl", "".join(json.dumps(row) + "\n" for row in rows))

    def _columns(self) -> list[str]:
        chances = [f"prob_{name}" for name in self.classes]
        missing = [f"missing_{key}" for key in FILE_KEYS[1:]]
        known = ["scan_id", "patient_id", "grade", *chances, "entropy", "streams", *missing]
        return [*known, "label", "seconds"]

    def _cells(self, row: Row) -> Row:
        chances = {f"prob_{name}": row["probabilities"][name] for name in self.classes}
        missing = {f"missing_{key}": int(key in row["missing"]) for key in FILE_KEYS[1:]}
        cells = {**row, **chances, **missing, "streams": "+".join(row["streams"])}
        return {column: cells[column] for column in self._columns()}

    def _case_folder(self, scan_id: str) -> Path:
        if not re.fullmatch(r"\w[\w .+-]*", scan_id):
            raise ValueError(
                f"scan_id must do as the name of a folder (letters, digits, space, . _ + -), got {scan_id!r}"
            )
        return self.folder / scan_id


def _save_nifti(path: Path, array: NDArray, affine: NDArray) -> None:
    import nibabel as nib

    image = nib.Nifti1Image(np.asarray(array, dtype=np.float32), affine)
    image.header.set_xyzt_units("mm")
    with replacing(path) as temporary:
        nib.save(image, temporary)
