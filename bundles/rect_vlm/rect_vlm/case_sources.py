"""Where the CTs to read come from: one CT, a folder of them, a datalist, or a cohort in CT-RATE's layout."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rect_vlm import phantom
from rect_vlm.ctrate import read_ctrate
from rect_vlm.dicom_series import is_dicom
from rect_vlm.hu import INTENSITIES
from rect_vlm.records import first_reconstructions

Case = dict[str, Any]

VOLUMES = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".npz")
SEGMENTATIONS = ("segmentation", "totalsegmentator", "mask")  # names of the label map of the CT beside it
CT_RATE = ("train_fixed", "valid_fixed", "multi_abnormality_labels", "radiology_text_reports")
DATALIST = "datalist.json"
PREDICTION = "prediction.json"  # a folder that a prediction was written to is no input
WANTED = (
    "dataset_dir must be a CT (NIfTI, NRRD, MetaImage, .npz, DICOM folder), a folder of CTs or a datalist"
)
_LAST_SPLITS = ("test", "testing", "valid", "validation")
_FROM_TABLES = ("id", "image", "regions", "intensity", "hu_source", "slope", "intercept", "spacing")
_LISTED = ("report", "labels", "regions", "intensity")


def cases_from(
    source: str | Path, split: str = "auto", segmentation: str | Path | None = None, intensity: str = "auto"
) -> list[Case]:
    """Cases with `id`, `image` and `intensity`; with `regions`, `report` and `labels` where they are known.

    A folder in CT-RATE's layout, or a simulated cohort, gives the first reconstruction of every scan; a
    folder with a `datalist.json` is that list. Any other folder is searched with all below it: a folder of
    DICOM files is one CT, every other volume is a CT of its own, and its id is the path. A file called
    `segmentation`, `totalsegmentator` or `mask` is the label map of the only CT beside it. A datalist is a
    JSON list of `{"image", "id", "regions", "intensity", "report", "labels"}`, all but `image` optional, or
    `{"test": [...], ...}`; paths may be relative to it.

    Args:
        source: file or folder.
        split: of a cohort or a datalist, or "all"; "auto" takes the test or validation split, otherwise all.
        segmentation: TotalSegmentator label map of the CT, when `source` is a single one.
        intensity: see `volume_input.read_volume`; "auto" is "uint8_window" for .npz files and "hu" otherwise.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: no CT, a segmentation for many, an unknown option, or a datalist with a fault.
    """
    place = Path(source).expanduser().absolute()
    if intensity not in ("auto", *INTENSITIES):
        raise ValueError(f"intensity must be auto or one of {', '.join(INTENSITIES)}, got {intensity!r}")
    if not place.exists():
        raise FileNotFoundError(f"{WANTED}, got {place}: no such file")
    found = _cases(place, split)
    if segmentation is not None:
        if len(found) != 1:
            raise ValueError(f"segmentation belongs to a single CT, {place} has {len(found)}")
        found[0]["regions"] = str(Path(segmentation).expanduser().absolute())
    _check_ids(found)
    return [{**case, "intensity": _intensity(case, intensity)} for case in found]


def _cases(place: Path, split: str) -> list[Case]:
    if _is_cohort(place):
        return _cohort(place, split)
    datalist = place / DATALIST if place.is_dir() else place
    if datalist.is_file() and datalist.suffix.lower() == ".json":
        return list(_listed(datalist, split))
    if is_volume(place):
        return [{"id": stem(place), "image": str(place)}]
    if not place.is_dir():
        raise ValueError(f"{WANTED}, got {place}")
    found = [{"id": _name(place, Path(case["image"])), **case} for case in _search(place)]
    if not found:
        raise ValueError(f"{WANTED}, {place} holds none")
    return found


def is_volume(path: Path) -> bool:
    """Whether a file is named like a volume."""
    return path.is_file() and path.name.lower().endswith(VOLUMES)


def stem(path: Path) -> str:
    """Name of a volume without its suffix, of a folder as it is."""
    suffix = "" if path.is_dir() else next((end for end in VOLUMES if path.name.lower().endswith(end)), "")
    return path.name[: len(path.name) - len(suffix)]


def _is_cohort(place: Path) -> bool:
    return (place / phantom.SIMULATION).is_file() or any((place / name).is_dir() for name in CT_RATE)


def _cohort(place: Path, split: str) -> list[Case]:
    simulated = (place / phantom.SIMULATION).is_file()  # its volumes are made when the run starts
    wanted = {"auto": ("valid",), "all": ("train", "valid")}.get(split, (split,))
    cases = []
    for name in wanted:
        records = first_reconstructions(read_ctrate(place, name, only_found=not simulated))
        for record in records:
            facts = {"report": record["report"] or None, "labels": record["labels"]}
            known: dict[str, Any] = {key: value for key, value in record.items() if key in _FROM_TABLES}
            cases.append(known | {key: value for key, value in facts.items() if value is not None})
    return cases


def _search(folder: Path) -> Iterator[Case]:
    """CTs at or below a folder, in the order of their names."""
    if (folder / PREDICTION).is_file():
        return
    entries = [entry for entry in sorted(folder.iterdir()) if not entry.name.startswith(".")]
    volumes = [entry for entry in entries if is_volume(entry)]
    if not volumes and any(is_dicom(entry) for entry in entries if entry.is_file()):
        yield {"image": str(folder)}
        return
    maps = [volume for volume in volumes if stem(volume).lower() in SEGMENTATIONS]
    scans = [volume for volume in volumes if volume not in maps]
    beside = {"regions": str(maps[0])} if len(maps) == len(scans) == 1 else {}
    for entry in entries:
        if entry.is_dir():
            yield from _search(entry)
        elif entry in scans:
            yield {"image": str(entry), **beside}


def _name(source: Path, image: Path) -> str:
    parts = image.relative_to(source).parts[:-1]
    return "_".join((*parts, stem(image)))


def _listed(datalist: Path, split: str) -> Iterator[Case]:
    try:
        content = json.loads(datalist.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{datalist}: must be JSON: {error}") from error
    groups = content if isinstance(content, dict) else {"": content}
    groups = {name: rows for name, rows in groups.items() if isinstance(rows, list)}
    chosen = _chosen_groups(datalist, groups, split)
    for name in chosen:
        for i, entry in enumerate(groups[name]):
            place = f"{datalist}: {name or 'entry'}[{i}]"
            if not isinstance(entry, Mapping) or not isinstance(entry.get("image"), str):
                raise ValueError(f"{place}: key image must be a path, got {entry!r:.80}")
            image = (datalist.parent / entry["image"]).absolute()
            case = {key: entry[key] for key in _LISTED if entry.get(key) is not None}
            if "regions" in case:
                case["regions"] = str((datalist.parent / case["regions"]).absolute())
            yield {"id": str(entry.get("id") or stem(image)), "image": str(image), **case}


def _chosen_groups(datalist: Path, groups: Mapping[str, list[Any]], split: str) -> list[str]:
    filled = [name for name, rows in groups.items() if rows]
    if split == "auto":
        chosen = [name for name in _LAST_SPLITS if name in filled][:1] or filled
    else:
        chosen = filled if split == "all" or filled == [""] else [name for name in filled if name == split]
    if not chosen:
        raise ValueError(f"{datalist}: must hold entries of split {split!r}, it has {filled or 'none'}")
    return chosen


def _intensity(case: Case, wanted: str) -> str:
    if wanted != "auto":
        return wanted
    windowed = case["image"].lower().endswith(".npz")
    return case.get("intensity") or ("uint8_window" if windowed else "hu")


def _check_ids(cases: list[Case]) -> None:
    places: dict[str, str] = {}
    for case in cases:
        first = places.setdefault(case["id"], case["image"])
        if first != case["image"]:
            raise ValueError(f"{first} and {case['image']} would both be case {case['id']}, rename one")
