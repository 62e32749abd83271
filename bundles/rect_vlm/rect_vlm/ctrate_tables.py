"""The tables of CT-RATE (arXiv 2403.17834): labels, reports and metadata by volume, every fault collected.

Column names must be exactly those of the data set: a renamed column would otherwise be read as zeros.
"""

from __future__ import annotations

import ast
import csv
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from medbundles.problems import Problems

from rect_vlm.findings import FINDINGS
from rect_vlm.records import UNKNOWN

VOLUME = "VolumeName"
FINDINGS_COLUMN, IMPRESSION_COLUMN = "Findings_EN", "Impressions_EN"
METADATA_COLUMNS = ("RescaleSlope", "RescaleIntercept", "XYSpacing", "ZSpacing")
_EMPTY = ("", "not given.", "not given", "nan")
_LABELS = {"0": 0.0, "1": 1.0, "": UNKNOWN, "-1": UNKNOWN}


@dataclass(frozen=True)
class Metadata:
    """How raw values become HU, and mm per voxel along x, y, z; None where the table says nothing."""

    slope: float | None
    intercept: float | None
    spacing: tuple[float, float, float] | None


def volume_id(name: str) -> str:
    """`train_1_a_1.nii.gz` -> `train_1_a_1`."""
    return name.strip().removesuffix(".gz").removesuffix(".nii")


def read_labels(path: Path, problems: Problems) -> dict[str, list[float]]:
    """{volume: 18 labels of 0, 1 or -1 (empty cell)} in the order of FINDINGS, whatever that of the columns.

    A missing or unknown column, a cell that is no label and a repeated volume are problems.
    """
    table: dict[str, list[float]] = {}
    for line, row in _rows(path, (VOLUME, *FINDINGS), problems, closed=True):
        name, labels = volume_id(row[VOLUME]), []
        for finding in FINDINGS:
            cell = row[finding].strip().removesuffix(".0")
            if cell not in _LABELS:
                found = f"must be 0, 1 or empty, got {row[finding]!r}"
                problems.add("labels", f"{path}, line {line}, column {finding}: {found}")
            labels.append(_LABELS.get(cell, UNKNOWN))
        if name in table:
            problems.add("labels", f"{path}, line {line}: volume {name} is there twice")
        table[name] = labels
    return table


def read_reports(path: Path, problems: Problems) -> dict[str, str]:
    """{volume: report} as "FINDINGS:\\n...\\n\\nIMPRESSION:\\n..."; "" for a volume without findings."""
    table = {}
    for _, row in _rows(path, (VOLUME, FINDINGS_COLUMN, IMPRESSION_COLUMN), problems):
        table[volume_id(row[VOLUME])] = format_report(row[FINDINGS_COLUMN], row[IMPRESSION_COLUMN])
    return table


def format_report(findings: str, impression: str) -> str:
    """Report of two sections; "Not given." is empty, and without findings there is no report."""
    sections = {"FINDINGS": _given(findings), "IMPRESSION": _given(impression)}
    if not sections["FINDINGS"]:
        return ""
    return "\n\n".join(f"{title}:\n{text}" for title, text in sections.items() if text)


def read_metadata(path: Path, problems: Problems) -> dict[str, Metadata]:
    """{volume: slope, intercept and spacing}; a cell that is there and cannot be read is a problem."""
    table = {}
    for line, row in _rows(path, (VOLUME, *METADATA_COLUMNS), problems):
        values: dict[str, list[float] | None] = {}
        for column in METADATA_COLUMNS:
            count = 2 if column == "XYSpacing" else 1
            values[column] = _numbers(row[column], count)
            if values[column] is None and row[column].strip().lower() not in _EMPTY:
                found = f"must be {count} number{'s' if count > 1 else ''}, got {row[column]!r}"
                problems.add("metadata", f"{path}, line {line}, column {column}: {found}")
        slope, intercept, xy, z = values.values()
        spacing = (xy[0], xy[1], z[0]) if xy and z else None
        table[volume_id(row[VOLUME])] = Metadata(
            slope[0] if slope else None, intercept[0] if intercept else None, spacing
        )
    return table


def _rows(
    path: Path, columns: Sequence[str], problems: Problems, closed: bool = False
) -> Iterator[tuple[int, dict[str, str]]]:
    """(line, row) of a CSV table; no row when a column is missing or, in a `closed` table, unknown."""
    with path.open(newline="", encoding="utf-8-sig") as stream:
        reader = csv.DictReader(stream)
        names = [name.strip() for name in reader.fieldnames or ()]
        reader.fieldnames = names
        missing = [column for column in columns if column not in names]
        unknown = [name for name in names if name not in columns] if closed else []
        for column in missing:
            near = get_close_matches(column, names, 1, 0.6)
            problems.add(
                "columns",
                f"{path}: column {column!r} is missing" + (f", nearest is {near[0]!r}" if near else ""),
            )
        for name in unknown:
            known = get_close_matches(name, columns, 1, 0)[0]
            problems.add(
                "columns", f"{path}: unknown label column {name!r}, the nearest known one is {known!r}"
            )
        if missing or unknown:
            return
        for row in reader:
            if None in row or None in row.values():
                problems.add("columns", f"{path}, line {reader.line_num}: must have {len(names)} cells")
                continue
            yield reader.line_num, row


def _given(text: str) -> str:
    text = text.strip()
    return "" if text.lower() in _EMPTY else text


def _numbers(cell: str, count: int) -> list[float] | None:
    """The finite numbers of a cell such as `1.5` or `[0.68, 0.68]`, None when it does not hold `count`."""
    try:
        value = ast.literal_eval(cell.strip() or "None")
    except (ValueError, SyntaxError):
        return None
    values = list(value) if isinstance(value, list | tuple) else [value]
    if len(values) != count or not all(isinstance(v, int | float) and math.isfinite(v) for v in values):
        return None
    return [float(v) for v in values]
