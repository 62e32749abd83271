"""The file that inference writes: a JSON line per case, added as the run goes on, resumed after a kill."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from medbundles.atomic import write_text

logger = logging.getLogger(__name__)

Row = dict[str, Any]


class ReportLines:
    """`reports.jsonl`: rows with an `id`, each written and flushed as soon as its case is done."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def read(self) -> list[Row]:
        """The rows of earlier runs; a last line that a kill cut short is left out.

        Raises:
            ValueError: another line is no row; names file and line.
        """
        if not self.path.is_file():
            return []
        lines = self.path.read_bytes().split(b"\n")  # bytes: the cut may lie inside a character
        rows = []
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                row["id"]
            except (ValueError, TypeError, KeyError) as error:
                if number == len(lines):  # no line end: the write was cut short
                    logger.warning("%s: line %d is not complete, its case is done again", self.path, number)
                    continue
                raise ValueError(
                    f"{self.path}: line {number} must be a JSON object with an id: {error}"
                ) from error
            rows.append(row)
        return rows

    def write(self, rows: Iterable[Row]) -> None:
        """Replace the file in one step; OSError naming it if that fails."""
        write_text(self.path, "".join(_line(row) for row in rows))

    def add(self, row: Row) -> None:
        """Append one row."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(_line(row))

    def order(self, ids: Sequence[str]) -> list[Row]:
        """Bring the rows of these cases into their order, behind those of other runs, and return them."""
        rows = self.read()
        mine = {row["id"]: row for row in rows}
        ordered = [mine[name] for name in ids if name in mine]
        others = [row for row in rows if row["id"] not in set(ids)]
        self.write([*others, *ordered])
        return ordered


def _line(row: Row) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"
