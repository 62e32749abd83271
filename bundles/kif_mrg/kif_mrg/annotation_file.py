"""The entries of an annotation file as they stand, each checked for its form."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medbundles.problems import Problems

from kif_mrg.records import SPLITS

Entry = dict[str, Any]


def annotation_path(path: str | Path) -> Path:
    """The absolute path of an annotation file, given as itself or as the folder of an annotation.json."""
    path = Path(path).expanduser().absolute()
    return path / "annotation.json" if path.is_dir() else path


def load_entries(path: Path, problems: Problems) -> Iterator[tuple[str, Entry]]:
    """Yield (split, entry) of every well-formed entry of a JSON file and note what is wrong with the others.

    The file holds {"train": [...], ...} or a flat list; an entry of a list that names no split belongs to
    "test". Splits are yielded as the file calls them, unknown ones included.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not JSON, or neither an object nor a list.
    """
    content = _load(path)
    for name, rows in content.items() if isinstance(content, dict) else [("", content)]:
        if not isinstance(rows, list):
            if name in SPLITS:
                problems.add(name, f"{path.name}, key {name}: must be a list of entries, got {rows!r:.80}")
            continue  # a remark beside the splits
        for number, entry in enumerate(rows):
            wrong = list(_form_problems(entry, name))
            for key, problem in wrong:
                where = f"{path.name}, {_place(name, number, entry)}"
                problems.add(key, f"{where}, key {key}: {problem}")
            if not wrong:
                yield name or entry.get("split") or "test", entry


def _load(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"annotation not found: {path}")
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(content, (dict, list)):
        raise ValueError(f"{path} must hold an object of splits or a list of entries, got {content!r:.80}")
    return content


def _place(split: str, number: int, entry: Any) -> str:
    name = f", entry {entry['id']}" if isinstance(entry, dict) and "id" in entry else ""
    return f"{split or 'list'}[{number}]{name}"


def _form_problems(entry: Any, split: str) -> Iterator[tuple[str, str]]:
    if not isinstance(entry, dict):
        yield "entry", f"must be an object with the keys id, report and image_path, got {entry!r:.80}"
        return
    for key in ("id", "report", "image_path"):
        if entry.get(key) is None:
            yield key, "required, missing"
    if not isinstance(entry.get("report") or "", str):
        yield "report", f"must be text, got {entry['report']!r:.80}"
    images = entry.get("image_path") or []
    if not isinstance(images, str) and not _is_list_of(images, str):
        yield "image_path", f"must be a path or a list of paths, got {images!r:.80}"
    if not _is_list_of(entry.get("labels") or [], int, float, type(None)):
        yield "labels", f"must be a list of states, got {entry['labels']!r:.80}"
    for key in ("retrieved", "clip_indices"):
        if not _is_list_of(entry.get(key) or [], int):
            yield key, f"must be a list of rows of the report memory, got {entry[key]!r:.80}"
    said = entry.get("split") or split
    if not isinstance(said, str):
        yield "split", f"must be one of {', '.join(SPLITS)}, got {said!r:.80}"
    elif split and said != split:
        yield "split", f"must be {split}, as the list it is in, got {said!r}"


def _is_list_of(value: Any, *kinds: type) -> bool:
    return isinstance(value, list) and set(map(type, value)) <= set(kinds)
