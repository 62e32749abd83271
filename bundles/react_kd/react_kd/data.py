"""From a datalist on disk to datasets: reading and checking JSON or CSV, splits, caching.

The format is described in docs/data.md. The loaders live in sampling.py and are offered here as well.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai.data import CacheDataset, Dataset, PersistentDataset
from monai.transforms import Compose

from react_kd.cases import CASE_KEYS, CLASSES, FILE_KEYS, grade_of, nearest_key
from react_kd.fingerprint import hash_case, hash_transforms
from react_kd.folds import fold_cases
from react_kd.sampling import eval_loader, train_loader

__all__ = ["Datalist", "cases", "eval_loader", "fill_cache", "make_dataset", "read_datalist", "train_loader"]

SPLITS = ("training", "validation", "test", "external")
CLINICAL_COLUMNS = ("afp", "age", "sex", "hepatitis")
Case = dict[str, Any]


@dataclass(frozen=True)
class Datalist:
    """A cohort: class names and cases by split; every path is absolute, every label an index or absent."""

    name: str
    classes: tuple[str, ...]
    splits: dict[str, list[Case]]


def read_datalist(path: str | Path) -> Datalist:
    """Read a JSON or CSV datalist, or the one in a folder, and check everything that needs no image file.

    Raises FileNotFoundError when it is missing, ValueError with all problems at once (file, case, key):
    unknown or missing keys, labels outside the classes, a scan_id used twice, a patient in two splits.
    """
    path = Path(path).expanduser().absolute()
    if path.is_dir():
        path = path / "datalist.json" if (path / "datalist.json").is_file() else path / "datalist.csv"
    if not path.is_file():
        raise FileNotFoundError(f"datalist not found: {path}")
    readers = {".json": _read_json, ".csv": _read_csv}
    if path.suffix.lower() not in readers:
        raise ValueError(f"datalist must be a .json or .csv file, got {path}")
    datalist, problems = readers[path.suffix.lower()](path)
    problems += list(_problems(datalist))
    if problems:
        raise ValueError("\n".join([f"{path}: {len(problems)} problems", *problems]))
    splits = {
        split: [_resolve(case, datalist.classes, path.parent) for case in rows]
        for split, rows in datalist.splits.items()
    }
    return Datalist(datalist.name, datalist.classes, splits)


def cases(
    path: str | Path, split: str = "training", fold: int = 0, folds: int = 3, seed: int = 0
) -> list[Case]:
    """Cases of one split: "training", "validation", "test", "external" or "all".

    A datalist that names its own validation cases is used as it stands; otherwise training and validation
    are one fold of a patient-grouped cross-validation of its training cases. Raises ValueError for a split
    it lacks.
    """
    splits = read_datalist(path).splits
    if split == "all":
        return [case for rows in splits.values() for case in rows]
    if split in ("training", "validation") and "training" in splits and "validation" not in splits:
        training, validation = fold_cases(splits["training"], fold, folds, seed)
        return training if split == "training" else validation
    if split not in splits:
        raise ValueError(f"split must be one of {[*splits, 'all']} in {path}, got {split!r}")
    return splits[split]


def make_dataset(
    data: Sequence[Mapping[str, Any]],
    transform: Compose | Sequence[Callable],
    cache: str = "memory",
    cache_dir: str | Path | None = None,
    progress: bool = True,
    num_workers: int = 2,
) -> Dataset:
    """Dataset over cases; everything before the first random transform is cached.

    `cache` is "memory" (CacheDataset: each case is kept once it has been asked for, or all of them after
    `fill_cache`, by `num_workers` threads), "persistent" (PersistentDataset in `cache_dir`, reused between
    runs for as long as files and transforms stay the same; keeps no image metadata) or "none". `transform`
    may be a list of Compose objects. Raises ValueError for a label that is no grade.
    """
    rows = [dict(case) for case in data]
    for row in rows:
        grade_of(row)
    # Compose counts as random itself, so a nested one would end the cached part.
    flat = Compose(transform if isinstance(transform, Compose) else list(transform)).flatten()
    if cache == "memory":
        return CacheDataset(rows, flat, num_workers=num_workers, progress=progress, runtime_cache=True)
    if cache == "persistent":
        folder = Path(cache_dir) if cache_dir is not None else _default_cache()
        return PersistentDataset(
            rows, flat, folder, hash_func=hash_case, hash_transform=hash_transforms, track_meta=False
        )
    if cache == "none":
        return Dataset(rows, flat)
    raise ValueError(f'cache must be "memory", "persistent" or "none", got {cache!r}')


def fill_cache(dataset: Dataset) -> None:
    """Fill the cache of a "memory" dataset with a progress bar; any other dataset stays as it is.

    Kept apart from the construction, so that looking at a config does not read images.
    """
    if isinstance(dataset, CacheDataset) and dataset.runtime_cache:
        dataset.runtime_cache = False
        dataset.set_data(dataset.data)


def _default_cache() -> Path:
    from medbundles.samples import cache_dir

    return cache_dir() / "react_kd" / "preprocessed"


def _read_json(path: Path) -> tuple[Datalist, list[str]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold an object with a list of cases under training, got a list")
    problems = [
        f"  key {key}: unknown split, the nearest known one is {nearest_key(key, SPLITS)}"
        for key, value in content.items()
        if isinstance(value, list) and key not in (*SPLITS, "classes")
    ]
    splits = {split: content[split] for split in SPLITS if content.get(split)}
    classes = content.get("classes", CLASSES)
    return Datalist(str(content.get("name", path.stem)), tuple(map(str, classes)), splits), problems


def _read_csv(path: Path) -> tuple[Datalist, list[str]]:
    splits: dict[str, list[Case]] = {}
    problems = []
    with path.open(newline="", encoding="utf-8-sig") as file:
        for line, row in enumerate(csv.DictReader(file), start=2):
            if None in row:
                problems.append(f"  line {line}: more cells than columns")
            filled = {
                key.strip(): value.strip() for key, value in row.items() if key and value and value.strip()
            }
            split = filled.pop("split", "training")
            if split not in SPLITS:
                problems.append(
                    f"  line {line}, key split: must be one of {', '.join(SPLITS)}, got {split!r}"
                )
            clinical = {key: _number(filled.pop(key)) for key in CLINICAL_COLUMNS if key in filled}
            case: Case = {**filled, "clinical": clinical} if clinical else filled
            splits.setdefault(split, []).append(case)
    return Datalist(path.stem, CLASSES, splits), problems


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _problems(datalist: Datalist) -> Iterator[str]:
    if not datalist.splits:
        yield "  holds no case; cases belong under the key training"
    scans: dict[str, str] = {}
    patients: dict[str, str] = {}
    for split, rows in datalist.splits.items():
        for number, case in enumerate(rows):
            where = f"  {split}[{number}]"
            if not isinstance(case, dict):
                yield f"{where}: a case must be an object with the keys {', '.join(CASE_KEYS)}, got {case!r}"
                continue
            where += f", case {case.get('scan_id', 'without scan_id')}"
            yield from _case_problems(case, datalist.classes, where)
            scan, patient = str(case.get("scan_id", "")), str(case.get("patient_id", ""))
            if scan and scan in scans:
                yield f"{where}, key scan_id: {scan} is used twice, first in {scans[scan]}"
            scans.setdefault(scan, f"{split}[{number}]")
            if patient and patients.setdefault(patient, split) != split:
                yield f"{where}, key patient_id: patient {patient} is also in {patients[patient]}"


def _case_problems(case: Case, classes: Sequence[str], where: str) -> Iterator[str]:
    for key in case:
        if key not in CASE_KEYS:
            yield f"{where}, key {key}: unknown modality or column, nearest known key: {nearest_key(key)}"
    for key in ("patient_id", "scan_id", "image"):
        if case.get(key) in (None, ""):
            yield f"{where}, key {key}: required, missing"
    for key in FILE_KEYS:
        if case.get(key) is not None and not isinstance(case[key], str):
            yield f"{where}, key {key}: must be a path, got {case[key]!r}"
    if not isinstance(case.get("clinical") or {}, dict):
        yield f"{where}, key clinical: must be an object such as {{'afp': 12}}, got {case['clinical']!r}"
    try:
        grade_of(case, classes)
    except ValueError as error:
        yield f"  {error}"


def _resolve(case: Case, classes: Sequence[str], folder: Path) -> Case:
    resolved = {key: value for key, value in case.items() if value not in (None, "")}
    for key in FILE_KEYS:
        if key in resolved:
            resolved[key] = str(folder / Path(resolved[key]).expanduser())
    for key in ("patient_id", "scan_id"):
        resolved[key] = str(resolved[key])
    if "label" in resolved:
        resolved["label"] = grade_of(resolved, classes)
    return resolved
