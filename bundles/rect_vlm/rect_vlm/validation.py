"""Checks before training starts: every record and every file, with all that is wrong in one error."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from medbundles.atomic import write_text
from medbundles.problems import Problems
from medbundles.samples import cache_dir

from rect_vlm.case_steps import LoadCased
from rect_vlm.ctrate import read_ctrate
from rect_vlm.findings import FINDINGS, LESIONS
from rect_vlm.fingerprint import volume_key
from rect_vlm.grids import VolumeGrid, grid_problem, other_grid_problem
from rect_vlm.hu import INTENSITIES
from rect_vlm.phantom import ensure
from rect_vlm.records import Record, describe, volume_of
from rect_vlm.volume_files import read_grid

logger = logging.getLogger(__name__)

VERSION = 1  # raise when sound files may become unsound ones
TASKS = ("classification", "localization", "report")
MAX_THREADS = 4
READ_VOXELS = 256  # volumes of a set that are read to the end; reading 50,000 takes days
_DAMAGE = (ValueError, OSError)

Splits = Mapping[str, Sequence[Record]]


def check_records(
    splits: Splits,
    tasks: Sequence[str] = TASKS,
    read_voxels: int | None = READ_VOXELS,
    progress: bool = True,
    problems: Problems | None = None,
) -> None:
    """Check records and raise one ValueError that lists all that is wrong, each with volume, file and key.

    Of every volume the files must be there, 3-D, with usable voxels, masks on the grid of their CT, and slope
    and intercept where they are needed. An evenly spread part is read to the end: its values must be HU.
    A set without a fault is remembered until a file changes.

    Args:
        splits: records by split; a patient may be in one only.
        tasks: what is trained: "classification" needs labels, "report" findings, "localization" a mask.
        read_voxels: volumes that are read; None reads all.
        progress: show a progress bar.
        problems: collects instead of raising.
    """
    unknown = sorted(set(tasks) - set(TASKS))
    if unknown:
        raise ValueError(f"tasks must be among {', '.join(TASKS)}, got {', '.join(unknown)}")
    own = Problems() if problems is None else problems
    records = [record for rows in splits.values() for record in rows]
    if not records:
        own.add("records", "there must be at least one volume, got none")
    for record in records:
        for key, problem in record_problems(record, tasks):
            own.add(key, f"{describe(record)}, key {key}: {problem}")
    _note_set_problems(splits, tasks, own)
    _note_file_problems(records, read_voxels, progress, own)
    if problems is None:
        own.raise_if_any("the records")


def read_checked(
    dataset_dir: str | Path,
    splits: Sequence[str] = ("train", "valid"),
    tasks: Sequence[str] = TASKS,
    read_voxels: int | None = READ_VOXELS,
    progress: bool = True,
    **reading: Any,
) -> dict[str, list[Record]]:
    """Read splits by `read_ctrate(dataset_dir, split, **reading)` and check them, with one error for both.

    The volumes of a simulated cohort are made first, as far as they are not there.
    """
    ensure(dataset_dir, progress)
    problems = Problems()
    records = {split: read_ctrate(dataset_dir, split, problems=problems, **reading) for split in splits}
    check_records(records, tasks, read_voxels, progress, problems)
    problems.raise_if_any(str(dataset_dir))
    return records


def record_problems(record: Mapping[str, Any], tasks: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(key, what is wrong) of a record, as far as it can be told without its files."""
    labels = record["labels"]
    if labels is None and "classification" in tasks:
        yield "labels", "the table of labels has no row for this volume"
    if labels is not None and (len(labels) != len(FINDINGS) or not {-1.0, 0.0, 1.0}.issuperset(labels)):
        yield "labels", f"must be {len(FINDINGS)} values of 0, 1 or -1 (unknown), got {labels}"
    if not record["report"] and "report" in tasks:
        yield (
            "report",
            "must have findings, Findings_EN is empty, not given or missing; leave the volume out by exclude",
        )
    for lesion in sorted(set(record["lesion_masks"]) - set(LESIONS)):
        yield "lesion_masks", f"must be among {', '.join(LESIONS)}, got {lesion!r}"
    if record["intensity"] not in INTENSITIES:
        yield "intensity", f"must be one of {', '.join(INTENSITIES)}, got {record['intensity']!r}"
    if record["hu_source"] == "metadata":
        for column, key in (("RescaleSlope", "slope"), ("RescaleIntercept", "intercept")):
            if record[key] is None:
                yield key, f"raw values need {column} of the metadata table, which has none for this volume"


def file_problems(record: Record, voxels: bool) -> list[tuple[str, str]]:
    """(key, what is wrong) of the files of a record; `voxels` reads them to the end."""
    try:
        image = read_grid(record["image"])
    except _DAMAGE as error:
        return [("image", str(error))]
    found = []
    grids = [image] if record["spacing"] is None else [image, image.with_spacing(record["spacing"])]
    for key, grid in zip(("image", "spacing"), grids, strict=False):
        if problem := grid_problem(grid):
            found.append((key, problem))
    for key, path in _mask_files(record):
        if problem := _mask_problem(path, image):
            found.append((key, problem))
    if voxels and not found:
        try:
            LoadCased()(record)  # type: ignore[arg-type]
        except _DAMAGE as error:
            found.append(("", str(error)))  # names record and key itself
    return found


def _mask_files(record: Record) -> Iterator[tuple[str, str]]:
    if record["regions"] is not None:
        yield "regions", record["regions"]
    for path in sorted(set(record["lesion_masks"].values()) - {record["image"]}):
        yield "lesion_masks", path


def _mask_problem(path: str, image: VolumeGrid) -> str | None:
    try:
        problem = other_grid_problem(read_grid(path), image)
    except _DAMAGE as error:
        return str(error)
    return f"{path}: {problem}" if problem else None


def _note_set_problems(splits: Splits, tasks: Sequence[str], problems: Problems) -> None:
    """Note volumes used twice, patients in two splits, HU beside windowed values, and no mask at all."""
    seen: set[str] = set()
    split_of: dict[str, str] = {}
    first: Record | None = None
    for split, records in splits.items():
        for record in records:
            first = first or record
            if record["id"] in seen:
                problems.add("id", f"{describe(record)}, key id: is used twice")
            seen.add(record["id"])
            if split_of.setdefault(record["patient"], split) != split:
                line = f"patient {record['patient']} is also in {split_of[record['patient']]}"
                problems.add("patient", f"{describe(record)}, key patient: {line}")
            if record["intensity"] != first["intensity"]:
                line = f"must be {first['intensity']} as in {first['id']}, windowed values cannot join HU"
                problems.add("intensity", f"{describe(record)}, key intensity: {line}")
        if "localization" in tasks and records and not any(record["lesion_masks"] for record in records):
            line = (
                "localization needs masks, no volume has one (lesion_masks/{lesion}/{volume}.nii.gz, ts_seg)"
            )
            problems.add("lesion_masks", f"{split}, key lesion_masks: {line}")


def _note_file_problems(
    records: Sequence[Record], read_voxels: int | None, progress: bool, problems: Problems
) -> None:
    from tqdm import tqdm

    mark = _mark(records, read_voxels)
    if not records or (mark is not None and mark.is_file()):
        return
    step = 1 if read_voxels is None else max(1, -(-len(records) // max(read_voxels, 1)))
    read = set(range(0, len(records), step)) if read_voxels != 0 else set()
    clean = True
    with ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1)) as pool:
        answers = pool.map(lambda i: file_problems(records[i], i in read), range(len(records)))
        bar = tqdm(answers, total=len(records), desc="checking volumes", unit="volume", disable=not progress)
        for record, found in zip(records, bar, strict=True):
            for key, problem in found:
                clean = False
                place = f"{describe(record)}, key {key}: " if key else ""
                problems.add(key or "voxels", f"{place}{problem}")
    if clean and mark is not None:
        try:
            write_text(mark, f"{len(records)} volumes\n")
        except OSError as error:
            logger.warning("the volumes will be checked again at the next start: %s", error)


def _mark(records: Sequence[Record], read_voxels: int | None) -> Path | None:
    """File whose presence says that exactly these volumes, as they are now, were found sound."""
    digest = hashlib.sha256(f"{VERSION} {read_voxels}\n".encode())
    try:
        for record in records:
            digest.update(volume_key(volume_of(record)))
    except OSError:  # a file that is missing is reported where it is opened
        return None
    return cache_dir() / "rect_vlm" / "checked_volumes" / digest.hexdigest()[:32]
