"""What the text encoder reads about the 18 findings and the five lesions."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from rect_vlm.findings import FINDINGS, LESIONS

PROMPTS_FILE = Path(__file__).with_name("prompts.json")


@dataclass(frozen=True)
class Prompts:
    """One sentence per finding in the order of FINDINGS, one description per lesion in that of LESIONS."""

    findings: tuple[str, ...]
    lesions: tuple[str, ...]


def read_prompts(file: str | Path = PROMPTS_FILE) -> Prompts:
    """Read prompts from JSON: `{"findings": {name: text}, "lesions": {name: text}}`.

    Raises:
        ValueError: a finding or lesion without text, or a text for an unknown one; names file and key.
    """
    tables = json.loads(Path(file).read_text(encoding="utf-8"))
    return Prompts(_ordered(file, tables, "findings", FINDINGS), _ordered(file, tables, "lesions", LESIONS))


def _ordered(file: str | Path, tables: dict, key: str, names: tuple[str, ...]) -> tuple[str, ...]:
    table = tables.get(key) if isinstance(tables, dict) else None
    if not isinstance(table, dict):
        raise ValueError(f"{file}: {key!r} must map names to texts, got {type(table).__name__}")
    missing = [name for name in names if not str(table.get(name) or "").strip()]
    unknown = sorted(set(table) - set(names))
    if missing or unknown:
        raise ValueError(
            f"{file}: {key!r} must have one text for each of {len(names)} names; {missing=} {unknown=}"
        )
    return tuple(str(table[name]) for name in names)
