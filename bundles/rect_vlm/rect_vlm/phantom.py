"""The simulated chest-CT cohort, in the folders and tables of CT-RATE.

Every case is a pure function of (cohort seed, split, case number, VERSION), so a case does not depend on how
many there are, and a cohort can be resumed after a kill. It is simulated: no figure on it says anything about
patients.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from medbundles.atomic import replacing, write_text
from numpy.typing import NDArray

from rect_vlm import phantom_tables as tables
from rect_vlm.phantom_facts import Facts, fact_labels
from rect_vlm.phantom_rates import draw_facts
from rect_vlm.phantom_report import write_report, write_technique
from rect_vlm.phantom_volume import Scan, draw_scan, scan_grid

logger = logging.getLogger(__name__)

VERSION = 2  # of volumes and sentences: a cohort in the cache made by another version is not used
SPLITS = ("train", "valid")
STREAMS = ("facts", "report", "patient", "scanner")
SIMULATION = "simulation.json"
SECOND_EVERY = 16  # one scan in so many has a second reconstruction, as the reader of CT-RATE must expect
UNOUTLINED_EVERY = 10  # one training scan in so many has no lesion masks, only labels
# Axis directions of the files, by case number; most are stored as scanners do.
ORIENTATIONS = ("LPS", "RAS", "LPS", "LAS", "LPS", "PSR")


@dataclass(frozen=True)
class Case:
    """One reconstruction of one scan: its split, number (from 0) and reconstruction (from 1)."""

    split: str
    number: int
    reconstruction: int

    @property
    def volume(self) -> str:
        """Name of the volume without its suffix."""
        return f"{self.split}_{self.number + 1}_a_{self.reconstruction}"

    @property
    def place(self) -> str:
        """Path of the volume below any folder with CT-RATE's tree."""
        patient = f"{self.split}_{self.number + 1}"
        return f"{self.split}_fixed/{patient}/{patient}_a/{self.volume}.nii.gz"

    @property
    def outlined(self) -> bool:
        """Whether it has lesion masks."""
        return self.split != "train" or self.number % UNOUTLINED_EVERY != UNOUTLINED_EVERY - 1

    def rng(self, seed: int, stream: str) -> np.random.Generator:
        """Random numbers of one part; only the scanner differs between reconstructions."""
        which = self.reconstruction if stream == "scanner" else 1
        return np.random.default_rng(
            [VERSION, seed, SPLITS.index(self.split), self.number, which, STREAMS.index(stream)]
        )


def simulated_cohort(
    seed: int = 0, train: int = 640, valid: int = 96, folder: str | Path | None = None
) -> str:
    """Return the folder of a simulated cohort with its tables; `ensure` makes the volumes.

    Args:
        seed: cohort seed.
        train: training scans.
        valid: validation scans.
        folder: where to put it; default one below the cache folder, named by what the cohort depends on.

    Raises:
        ValueError: a negative size, or `folder` holds another cohort or other data.
    """
    if min(train, valid) < 0:
        raise ValueError(f"train and valid must be 0 or more scans, got {train} and {valid}")
    plan = {"version": VERSION, "seed": seed, "train": train, "valid": valid}
    if folder is None:
        from medbundles.samples import cache_dir

        digest = hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()[:12]
        folder = cache_dir() / "rect_vlm" / f"simulated_{digest}"
    folder = Path(folder)
    if (folder / SIMULATION).is_file():
        _check_same(folder, plan)
    else:
        _write_tables(folder, plan)
    return str(folder)


def case_facts(seed: int, case: Case) -> Facts:
    """What a case shows."""
    return draw_facts(case.rng(seed, "facts"))


def case_report(seed: int, case: Case) -> tuple[str, str]:
    """Findings and impression of a case."""
    return write_report(case_facts(seed, case), case.rng(seed, "report"))


def case_scan(seed: int, case: Case) -> Scan:
    """The volume of a case with its structures and lesions."""
    return draw_scan(case_facts(seed, case), case.rng(seed, "patient"), case.rng(seed, "scanner"))


def ensure(folder: str | Path, progress: bool = True) -> None:
    """Make the volumes of a simulated cohort that are not there yet; does nothing for any other folder."""
    folder = Path(folder)
    if not (folder / SIMULATION).is_file():
        return
    plan = json.loads((folder / SIMULATION).read_text(encoding="utf-8"))["plan"]
    missing = [case for case in _cases(plan) if not (folder / case.place).is_file()]
    if not missing:
        return
    from tqdm import tqdm

    logger.info("making %d simulated chest CTs in %s", len(missing), folder)
    for case in tqdm(missing, desc="simulated cohort", ncols=110, disable=not progress):
        _write_case(folder, case, case_scan(plan["seed"], case))


def main(output: str, seed: int = 0, train: int = 640, valid: int = 96) -> str:
    """Command: make a simulated cohort in `output`, e.g. `--train 30 --valid 10`."""
    folder = simulated_cohort(seed, train, valid, output)
    ensure(folder)
    return folder


def _cases(plan: dict[str, Any]) -> Iterator[Case]:
    for split in SPLITS:
        for number in range(plan[split]):
            yield Case(split, number, 1)
            if number % SECOND_EVERY == SECOND_EVERY // 2:
                yield Case(split, number, 2)


def _write_case(folder: Path, case: Case, scan: Scan) -> None:
    axes = ORIENTATIONS[case.number % len(ORIENTATIONS)]
    structures = folder / "ts_seg" / "ts_total" / case.place
    _save(structures, scan.structures, scan.affine, axes)
    if case.outlined:
        for lesion, mask in scan.lesions.items():
            path = folder / "lesion_masks" / lesion / f"{case.volume}.nii.gz"
            _save(path, mask.astype(np.uint8), scan.affine, axes)
    # The image comes last: a case that has it is complete.
    _save(folder / case.place, scan.hu, scan.affine, axes)


def _save(path: Path, array: NDArray, affine: NDArray[np.float64], axes: str) -> None:
    import nibabel as nib
    from nibabel import orientations

    image = nib.Nifti1Image(array, affine)
    stored, wanted = orientations.io_orientation(affine), orientations.axcodes2ornt(axes)
    image = image.as_reoriented(orientations.ornt_transform(stored, wanted))
    image.header.set_xyzt_units("mm")
    with replacing(path) as temporary:
        nib.save(image, temporary)


def _write_tables(folder: Path, plan: dict[str, Any]) -> None:
    # Under torchrun every process may be at it, with the same content and hidden temporary files.
    own = {SIMULATION, *(tables.table_path(Path(), table, "train").parts[0] for table in tables.TABLES)}
    if folder.is_dir() and any(path.name not in own and path.name[0] != "." for path in folder.iterdir()):
        raise ValueError(f"a simulated cohort needs an empty folder, {folder} holds other files")
    cases = list(_cases(plan))
    facts = [case_facts(plan["seed"], case) for case in cases]
    for split in SPLITS:
        rows: dict[str, list[dict[str, object]]] = {table: [] for table in tables.TABLES}
        for case, found in zip(cases, facts, strict=True):
            if case.split == split:
                for table, row in _rows(plan["seed"], case, found).items():
                    rows[table].append(row)
        for table, lines in rows.items():
            tables.write_table(folder, table, split, lines)
    listed = [{"volume": case.volume, "facts": asdict(f)} for case, f in zip(cases, facts, strict=True)]
    # The plan comes last: a folder that has it is complete but for the volumes.
    write_text(folder / SIMULATION, json.dumps({"plan": plan, "cases": listed}, indent=1))


def _rows(seed: int, case: Case, facts: Facts) -> dict[str, dict[str, object]]:
    name = f"{case.volume}.nii.gz"
    grid = scan_grid(case.rng(seed, "scanner"))
    return {
        "reports": tables.report_row(name, write_technique(facts), *case_report(seed, case)),
        "labels": tables.label_row(name, fact_labels(facts)),
        "metadata": tables.metadata_row(name, grid.shape, grid.spacing),
    }


def _check_same(folder: Path, plan: dict[str, Any]) -> None:
    made = json.loads((folder / SIMULATION).read_text(encoding="utf-8"))["plan"]
    if differing := [key for key, value in plan.items() if made.get(key) != value]:
        raise ValueError(f"{folder} holds data with other {', '.join(differing)}; choose another folder")
