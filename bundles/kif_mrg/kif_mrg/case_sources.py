"""Where the radiographs to report on come from: one image, a folder of images, or a datalist."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kif_mrg.records import SPLITS, study_of

SUFFIXES = (".png", ".jpg", ".jpeg", ".dcm", ".dicom")
DATALIST = "annotation.json"
WANTED = "dataset_dir must be an image (PNG, JPEG, DICOM), a folder of images or a datalist (.json)"
Case = dict[str, Any]


def cases_from(source: str | Path, split: str = "auto", image_dir: str | Path | None = None) -> list[Case]:
    """Cases with `id`, `image_path` (a list of absolute paths), `study_id` and `split`, by name or as listed.

    A folder with an `annotation.json` is that datalist; of any other folder every image in it and below is a
    case, with its path below the folder as id. A datalist is a JSON list of `{"id", "image_path"}` or R2Gen's
    `{"train": [...], "val": [...], "test": [...]}`; `report` and `retrieved` are kept where given.

    Args:
        source: image, folder or datalist.
        split: train, val, test or all; "auto" takes the test entries if there are any, otherwise all.
        image_dir: what the image paths of a datalist are relative to; by default the folder `images` beside
            it for a file that is found there, otherwise the datalist's own folder.

    Raises:
        FileNotFoundError: `source` does not exist.
        ValueError: it holds no image, or is a datalist with a fault; names file, entry and key.
    """
    source = Path(source).expanduser().absolute()
    if not source.exists():
        raise FileNotFoundError(f"{WANTED}, got {source}: no such file")
    datalist = source / DATALIST if source.is_dir() else source
    if datalist.is_file() and datalist.suffix.lower() == ".json":
        return _listed(datalist, split, Path(image_dir).expanduser() if image_dir else None)
    if source.is_dir():
        images = [path for path in sorted(source.rglob("*")) if _is_visible(path, source) and is_image(path)]
        if not images:
            raise ValueError(f"{WANTED}, {source} holds no image ({', '.join(SUFFIXES)})")
        return [_case(path.relative_to(source).as_posix(), path) for path in images]
    if not is_image(source):
        raise ValueError(f"{WANTED}, got {source}")
    return [_case(source.name, source)]


def is_image(path: Path) -> bool:
    """Whether a file is named like an image or, without a suffix, carries the DICOM mark at byte 128."""
    if not path.is_file():
        return False
    if path.suffix.lower() in SUFFIXES:
        return True
    if path.suffix and not path.suffix[1:].isdigit():  # DICOM files are often named by their dotted UID
        return False
    with path.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def _is_visible(path: Path, folder: Path) -> bool:
    return not any(part.startswith(".") for part in path.relative_to(folder).parts)


def _case(name: str, path: Path) -> Case:
    return {"id": name, "study_id": name, "split": "test", "image_path": [str(path)]}


def _listed(datalist: Path, split: str, image_dir: Path | None) -> list[Case]:
    if split not in (*SPLITS, "all", "auto"):
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, all or auto, got {split!r}")
    entries = list(_entries(datalist))
    found = {name for _, name, _ in entries}
    if split == "auto":
        split = "test" if "test" in found else "all"
    chosen = [(place, name, entry) for place, name, entry in entries if split in ("all", name)]
    cases = [{**_read(datalist, place, entry, image_dir), "split": name} for place, name, entry in chosen]
    if not cases:
        raise ValueError(f"{datalist}: split {split!r} has no entry, there are {sorted(found)}")
    seen: set[str] = set()
    for case in cases:
        if case["id"] in seen:
            raise ValueError(f"{datalist}: key id: every case needs its own, got {case['id']!r} twice")
        seen.add(case["id"])
    return cases


def _entries(datalist: Path) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """(place, split, entry) of everything a datalist holds."""
    try:
        content = json.loads(datalist.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{datalist}: must be JSON: {error}") from error
    for group, entries in content.items() if isinstance(content, dict) else [("", content)]:
        if not isinstance(entries, list):
            if isinstance(content, dict) and group not in SPLITS:
                continue  # a remark beside the splits
            raise ValueError(f"{datalist}: {group or 'it'} must be a list of entries, got {entries!r:.80}")
        for i, entry in enumerate(entries):
            place = f"{group or 'entry'}[{i}]"
            if not isinstance(entry, dict):
                raise ValueError(f"{datalist}: {place}: must be an object, got {entry!r:.80}")
            yield place, group or entry.get("split") or "test", entry


def _read(datalist: Path, place: str, entry: Mapping[str, Any], image_dir: Path | None) -> Case:
    names = entry.get("image_path")
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list) or not names or not all(isinstance(n, str) and n for n in names):
        raise ValueError(
            f"{datalist}: {place}: key image_path must be a path or a list of paths, "
            f"got {entry.get('image_path')!r}"
        )
    name = entry.get("id", names[0])
    if not isinstance(name, str | int) or name == "":
        raise ValueError(f"{datalist}: {place}: key id must be a text, got {name!r}")
    paths = [str(_located(datalist, image, image_dir)) for image in names]
    given = {"report": entry.get("report"), "retrieved": entry.get("retrieved", entry.get("clip_indices"))}
    kept = {key: value for key, value in given.items() if value is not None}
    study = study_of({**entry, "id": name}, names[0])
    return {"id": str(name), "study_id": study, "image_path": paths, **kept}


def _located(datalist: Path, image: str, image_dir: Path | None) -> Path:
    if image_dir is not None:
        return (image_dir / image).absolute()
    below = datalist.parent / "images" / image
    return below if below.is_file() else datalist.parent / image
