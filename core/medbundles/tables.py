"""Results on disk: CSV that grows row by row, strict JSON, and Markdown tables."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medbundles.atomic import write_text
from medbundles.report import text_cells

Row = Mapping[str, Any]
PathLike = str | os.PathLike[str]


def read_csv(path: PathLike) -> list[dict[str, str]]:
    """Rows of a CSV file with a header."""
    with Path(path).open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def write_csv(path: PathLike, rows: Sequence[Row], *, append: bool = False) -> Path:
    """Write rows with the columns of the first one, replacing the file in one step; None and nan stay empty.

    With `append` the rows of the present file come first; as the file is always replaced whole, a run that is
    killed leaves either the old or the new table.

    Raises:
        ValueError: rows do not share their columns, or the file to append to has others.
        OSError: the file cannot be written; names it.
    """
    old: list[dict[str, str]] = read_csv(path) if append and Path(path).exists() else []
    everything: list[Row] = [*old, *rows]
    columns = list(everything[0]) if everything else []
    for row in everything:
        if list(row) != columns:
            raise ValueError(f"rows of {path} must have the columns {columns}, got {list(row)}")
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {key: "" if _missing(value) else value for key, value in row.items()} for row in everything
    )
    return write_text(path, text.getvalue())


def write_json(path: PathLike, content: Any) -> Path:
    """Write `content` as strict JSON in one step: arrays become lists, nan and infinity null.

    Raises:
        TypeError: a value has no JSON form; the old file stays.
        OSError: the file cannot be written; names it.
    """
    return write_text(path, json.dumps(_plain(content), indent=1, allow_nan=False) + "\n")


def markdown_table(rows: Sequence[Row], digits: int = 3) -> str:
    """GitHub Markdown table of rows, columns in order of appearance, numbers right-aligned, missing as –."""
    columns, numeric, cells = text_cells(rows, digits)
    rule = ["---:" if is_number else "---" for is_number in numeric]
    lines = [[_one_line(text) for text in line] for line in (columns, *cells)]
    return "".join(f"| {' | '.join(line)} |\n" for line in (lines[0], rule, *lines[1:]))


def _one_line(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, (float, np.floating)) and math.isnan(value))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value) if isinstance(value, os.PathLike) else value
