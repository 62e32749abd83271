"""OmniAbnorm-CT: 2-D CT slices whose abnormalities are outlined and described, as cases to reason about."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medbundles.problems import Problems

CENTRE = "0.jpeg"  # the annotated slice; those around it are in "context"


@dataclass(frozen=True)
class ReasoningCase:
    """What a model is told about a case: files, region and category as texts, and the description."""

    case_id: str
    image_path: str
    mask_path: str
    region: str
    category: str
    description: str


def read_omniabnorm(folder: str | Path) -> list[ReasoningCase]:
    """Cases, one per abnormality, of the annotation files (*.json) of a folder with `image` and `mask`.

    Raises:
        ValueError: no annotation file, or all entries that lack a file or a key; names file, entry and key.
    """
    folder = Path(folder).expanduser()
    files = sorted(folder.glob("*.json"))
    if not files:
        raise ValueError(f"{folder} must hold annotation files (*.json) of OmniAbnorm-CT, it has none")
    problems = Problems()
    cases = [case for file in files for case in _cases(file, folder, problems)]
    problems.raise_if_any(str(folder))
    return cases


def _cases(file: Path, folder: Path, problems: Problems) -> Iterator[ReasoningCase]:
    content = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        problems.add("json", f"{file}: must be an object of entries by id, got {type(content).__name__}")
        return
    for name, entry in content.items():
        image = _file(folder, "image", entry.get("image", name), CENTRE)
        if not image.is_file():
            problems.add("image", f"{file}, entry {name}, key image: no such file {image}")
        for abnormality in entry.get("abnormality", ()):
            yield from _case(file, folder, str(name), entry, image, abnormality, problems)


def _case(
    file: Path,
    folder: Path,
    name: str,
    entry: Mapping[str, Any],
    image: Path,
    abnormality: Mapping[str, Any],
    problems: Problems,
) -> Iterator[ReasoningCase]:
    missing = [key for key in ("id", "label", "category") if key not in abnormality]
    if missing:
        problems.add("abnormality", f"{file}, entry {name}, key abnormality: lacks {', '.join(missing)}")
        return
    mask = _file(folder, "mask", entry.get("mask", name), f"{abnormality['id']}.jpeg")
    if not mask.is_file():
        problems.add("mask", f"{file}, entry {name}, key mask: no such file {mask}")
    texts = (abnormality.get(key) for key in ("rewritten_findings", "description"))
    yield ReasoningCase(
        case_id=f"{name}_{abnormality['id']}",
        image_path=str(image),
        mask_path=str(mask),
        region=str(abnormality.get("region", "")),
        category=f"{abnormality['category']}: {abnormality['label']}",
        description=next((str(text) for text in texts if text), ""),
    )


def _file(folder: Path, kind: str, place: str, name: str) -> Path:
    """A file of an entry, whose place is given below the folder or below its part for images or masks."""
    direct = folder / place / name
    return direct if direct.is_file() else folder / kind / Path(place).name / name
