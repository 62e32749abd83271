"""Rows of a clinical table, from csv or xlsx."""

from __future__ import annotations

import csv
import importlib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType

Row = dict[str, str]
CLINICAL = ("afp", "age", "sex", "hepatitis")


def optional_module(name: str) -> ModuleType:
    """Import a module of the extra `dicomseg`, or raise ImportError that names the extra."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"{name} is needed here: pip install 'medbundles[dicomseg]'") from error


def read_rows(path: str | Path, key: str) -> list[Row]:
    """Rows of the table (csv, or the first fitting sheet of an xlsx) whose header names the column `key`.

    Column names come back in lower case, values as stripped text; rows without a key are left out. Raises
    FileNotFoundError, or ValueError when no header names `key`, a key occurs twice, or the suffix is unknown.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"clinical table not found: {path}")
    readers = {".csv": _read_csv, ".xlsx": _read_xlsx}
    if path.suffix.lower() not in readers:
        raise ValueError(f"clinical table must be .csv or .xlsx, got {path}")
    for table in readers[path.suffix.lower()](path):
        rows = list(_below_header(table, key.lower()))
        if rows:
            counts = Counter(row[key.lower()] for row in rows)
            if repeated := [name for name, count in counts.items() if count > 1]:
                raise ValueError(f"{path}: column {key} must name each patient once, repeats {repeated}")
            return rows
    raise ValueError(f"{path} must have a header with a column {key} and rows below it, found none")


def clinical_values(row: Row) -> dict[str, dict[str, float | str]]:
    """The clinical covariates of a row as a datalist holds them, {} when all are empty."""
    values = {key: _number(row[key]) for key in CLINICAL if row.get(key)}
    return {"clinical": values} if values else {}


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _read_csv(path: Path) -> Iterator[Iterable[Iterable[object]]]:
    with path.open(newline="", encoding="utf-8-sig") as stream:
        yield csv.reader(stream)


def _read_xlsx(path: Path) -> Iterator[Iterable[Iterable[object]]]:
    book = optional_module("openpyxl").load_workbook(path, read_only=True, data_only=True)
    try:
        for sheet in book.worksheets:
            yield sheet.iter_rows(values_only=True)
    finally:
        book.close()


def _below_header(table: Iterable[Iterable[object]], key: str) -> Iterator[Row]:
    names: list[str] | None = None
    for cells in table:
        texts = ["" if cell is None else str(cell).strip() for cell in cells]
        if names is None:
            lower = [text.lower() for text in texts]
            names = lower if key in lower else None
            continue
        row = dict(zip(names, texts, strict=False))
        if row.get(key):
            yield row
