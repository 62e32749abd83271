"""CT-RATE (arXiv 2403.17834), or any cohort in its layout, from a folder to records.

train_fixed/train_1/train_1_a/train_1_a_1.nii.gz is reconstruction 1 of scan a of patient 1.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medbundles.problems import Problems

from rect_vlm.ctrate_tables import Metadata, read_labels, read_metadata, read_reports, volume_id
from rect_vlm.hu import resolve_source
from rect_vlm.lesion_masks import own_masks, segmented_masks
from rect_vlm.records import Record, first_reconstructions

__all__ = ["Record", "parse_volume", "read_ctrate", "volume_place"]

logger = logging.getLogger(__name__)

SPLITS = ("train", "valid")
RELEASES = ("auto", "fixed", "raw")
RECONSTRUCTIONS = ("auto", "all", "first")
_NAME = re.compile(r"((train|valid)_(\d+))_([a-z]+)_(\d+)")
_LONG = {"train": ("train",), "valid": ("validation", "valid")}  # its tables use both


def parse_volume(name: str) -> tuple[str, str, str, int]:
    """(split, patient, scan, reconstruction) of a volume name; ValueError for another kind of name.

    >>> parse_volume("train_1_a_2.nii.gz")
    ('train', 'train_1', 'train_1_a', 2)
    """
    found = _NAME.fullmatch(volume_id(name))
    if not found:
        raise ValueError(f"a volume must be named like train_1_a_1.nii.gz, got {name!r}")
    return found[2], found[1], f"{found[1]}_{found[4]}", int(found[5])


def volume_place(name: str) -> str:
    """Path of a volume below the folder of its split: `train_1/train_1_a/train_1_a_1.nii.gz`."""
    _, patient, scan, _ = parse_volume(name)
    return f"{patient}/{scan}/{volume_id(name)}.nii.gz"


def read_ctrate(
    dataset_dir: str | Path,
    split: str = "train",
    hu_source: str = "auto",
    release: str = "auto",
    reconstructions: str = "auto",
    only_found: bool = True,
    include: str | Path | Sequence[str] | None = None,
    exclude: str | Path | Sequence[str] | None = None,
    problems: Problems | None = None,
) -> list[Record]:
    """Records of one split in the order of patients, scans and reconstructions; no volume is opened.

    Args:
        dataset_dir: the folder with `train_fixed`, `radiology_text_reports`, ...
        split: "train" or "valid".
        hu_source: "nifti", "metadata" or "auto", see `hu.resolve_source`.
        release: the folder `{split}_fixed` ("fixed"), `{split}` ("raw"), or the first of them that is there.
        reconstructions: "all" volumes of a scan or the "first"; "auto" is all in training.
        only_found: leave out the volumes of the tables that are not on the disk, as CT-RATE is seldom
            downloaded whole; False takes them in, e.g. before the volumes of a simulated cohort are made.
        include: names of volumes, scans or patients to keep, or a file with one a line.
        exclude: the same of those to leave out; the list no_chest_{split}.txt of the data set is always.
        problems: collects what is wrong with the tables; None raises it as one error.

    Raises:
        FileNotFoundError: the folder or a list file is not there.
        ValueError: an unknown option, no volume, or all that is wrong with the tables.
    """
    for name, value, allowed in (
        ("split", split, SPLITS),
        ("release", release, RELEASES),
        ("reconstructions", reconstructions, RECONSTRUCTIONS),
    ):
        if value not in allowed:
            raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
    root = Path(dataset_dir).expanduser().absolute()
    if not root.is_dir():
        raise FileNotFoundError(f"dataset_dir must be a folder in CT-RATE's layout, got {root}")
    own = Problems() if problems is None else problems
    tables = _Tables.read(root, split, own)
    folder = _images(root, split, release)
    keep, leave = _names(include), _names(exclude) | _names(_no_chest(root, split))
    volumes = [v for v in _volumes(folder, split, tables, only_found) if _chosen(v, keep, leave)]
    records = [_record(root, folder, volume, hu_source, tables) for volume in volumes]
    if problems is None:
        own.raise_if_any(f"the tables of {root}")
    if not records and not own:
        raise ValueError(
            f"{folder} must hold volumes such as {split}_1/{split}_1_a/{split}_1_a_1.nii.gz, got none"
        )
    first = reconstructions == "first" or (reconstructions == "auto" and split != "train")
    return first_reconstructions(records) if first else records


@dataclass
class _Tables:
    """Everything that is known of the volumes of a split by id, and its own lesion masks."""

    labels: dict[str, list[float]] = field(default_factory=dict)
    reports: dict[str, str] = field(default_factory=dict)
    metadata: dict[str, Metadata] = field(default_factory=dict)
    masks: dict[str, dict[str, str]] = field(default_factory=dict)

    @classmethod
    def read(cls, root: Path, split: str, problems: Problems) -> _Tables:
        names = _LONG[split]
        tables = cls(masks=own_masks(root, problems))
        if labels := _table(root / "multi_abnormality_labels", names, "predicted_labels"):
            tables.labels = read_labels(labels, problems)
        if reports := _table(root / "radiology_text_reports", names, "reports"):
            tables.reports = read_reports(reports, problems)
        if metadata := _table(root / "metadata", names, "metadata"):
            tables.metadata = read_metadata(metadata, problems)
        return tables


def _table(folder: Path, names: Iterable[str], end: str) -> Path | None:
    candidates = [folder / f"{name}_{end}.csv" for name in names]
    return next((path for path in candidates if path.is_file()), None)


def _images(root: Path, split: str, release: str) -> Path:
    fixed, raw = root / f"{split}_fixed", root / split
    if release == "auto":
        return raw if raw.is_dir() and not fixed.is_dir() else fixed
    return fixed if release == "fixed" else raw


def _no_chest(root: Path, split: str) -> Path | None:
    path = root / "metadata" / f"no_chest_{split}.txt"
    return path if path.is_file() else None


def _names(given: str | Path | Sequence[str] | None) -> set[str]:
    if given is None:
        return set()
    lines = (
        Path(given).expanduser().read_text("utf-8").splitlines() if isinstance(given, str | Path) else given
    )
    return {volume_id(line) for line in lines if line.strip()}


def _chosen(volume: str, keep: set[str], leave: set[str]) -> bool:
    _, patient, scan, _ = parse_volume(volume)
    names = {volume, scan, patient}
    return (not keep or bool(names & keep)) and not names & leave


def _volumes(folder: Path, split: str, tables: _Tables, only_found: bool) -> list[str]:
    found = {
        volume_id(path.name)
        for path in folder.glob(f"{split}_*/{split}_*/*.nii.gz")
        if _NAME.fullmatch(volume_id(path.name))
    }
    listed = {
        name for table in (tables.labels, tables.reports) for name in table if name.startswith(f"{split}_")
    }
    if only_found and listed - found:
        logger.info("%s lacks %d of the %d volumes in the tables", folder, len(listed - found), len(listed))
    return sorted(found if only_found else found | listed, key=_order)


def _order(volume: str) -> tuple[int, str, int]:
    found = _NAME.fullmatch(volume)
    if not found:
        raise ValueError(f"a volume must be named like train_1_a_1.nii.gz, got {volume!r}")
    return int(found[3]), found[4].rjust(8), int(found[5])


def _record(root: Path, folder: Path, volume: str, hu_source: str, tables: _Tables) -> Record:
    split, patient, scan, _ = parse_volume(volume)
    place = volume_place(volume)
    below = f"{split}_fixed/{place}"
    own, segmented = tables.masks.get(volume, {}), segmented_masks(root, below)
    regions = root / "ts_seg" / "ts_total" / below
    source = resolve_source(hu_source, (folder / place).relative_to(root))
    known = tables.metadata.get(volume, Metadata(None, None, None))
    return Record(
        id=volume, scan=scan, patient=patient, split=split, image=str(folder / place), intensity="hu",
        hu_source=source, slope=known.slope, intercept=known.intercept,
        # The headers of the corrected release are right, those of the first are not.
        spacing=known.spacing if source == "metadata" else None,
        labels=tables.labels.get(volume), report=tables.reports.get(volume, ""),
        lesion_masks={**{lesion: path for lesion, (path, _) in segmented.items()}, **own},
        mask_values={lesion: value for lesion, (_, value) in segmented.items() if lesion not in own},
        regions=str(regions) if regions.is_file() else None,
    )  # fmt: skip
