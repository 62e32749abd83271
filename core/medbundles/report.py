"""One self-contained HTML file of headings, text, tables and figures, readable on a desk and on a phone."""

from __future__ import annotations

import base64
import html
import io
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medbundles.atomic import replacing, write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURE_DPI = 150
_TYPES = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg"}  # by the first bytes of the file


class HtmlReport:
    """Collects blocks in reading order; `save` writes them in one file with a table of contents, no network.

    All text is escaped: names of cases and files may hold any character.
    """

    def __init__(self, title: str, subtitle: str = "") -> None:
        self.title = title
        self.subtitle = subtitle
        self._blocks: list[str] = []
        self._contents: list[tuple[str, str]] = []  # (anchor, heading)

    def heading(self, text: str) -> None:
        """Start a section; it appears in the table of contents."""
        slug = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "section"
        anchor = f"{len(self._contents) + 1}-{slug}"
        self._contents.append((anchor, text))
        self._blocks.append(f'<h2 id="{anchor}">{html.escape(text)}</h2>')

    def paragraph(self, text: str) -> None:
        """Add plain text; an empty line in it starts another paragraph."""
        parts = re.split(r"\n\s*\n", text.strip())
        self._blocks += [f"<p>{html.escape(part)}</p>" for part in parts]

    def table(self, rows: Sequence[Mapping[str, Any]], caption: str = "", digits: int = 3) -> None:
        """Add a table with the columns in order of appearance; missing and nan show as a dash."""
        columns, numeric, cells = text_cells(rows, digits)
        kind = [' class="n"' if is_number else "" for is_number in numeric]

        def line(tag: str, texts: Sequence[str]) -> str:
            opened = zip(kind, texts, strict=True)
            return "".join(f"<{tag}{k}>{html.escape(t)}</{tag[:2]}>" for k, t in opened)

        head = line('th scope="col"', columns)
        body = "\n".join(f"<tr>{line('td', texts)}</tr>" for texts in cells)
        label = html.escape(caption or "table")
        self._blocks.append(
            f'<div class="table" role="region" aria-label="{label}" tabindex="0">\n<table>\n'
            + (f"<caption>{html.escape(caption)}</caption>\n" if caption else "")
            + f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>\n</div>"
        )

    def figure(self, source: str | os.PathLike[str] | Figure, caption: str = "") -> None:
        """Embed a PNG or JPEG file or a matplotlib figure; the caption is also its alternative text.

        Raises:
            ValueError: the file is neither PNG nor JPEG; names it.
            OSError: the file cannot be read.
        """
        if isinstance(source, (str, os.PathLike)):
            data, name = Path(source).read_bytes(), str(source)
        else:
            data, name = _png(source), "figure"
        media = next((media for start, media in _TYPES.items() if data.startswith(start)), None)
        if media is None:
            raise ValueError(f"a figure must be a PNG or JPEG file, got {name} with {data[:8]!r}")
        text = html.escape(caption)
        image = f"data:{media};base64,{base64.b64encode(data).decode('ascii')}"
        self._blocks.append(
            f'<figure><img src="{image}" alt="{text or "figure"}"{_width(data)}>'
            + (f"<figcaption>{text}</figcaption>" if text else "")
            + "</figure>"
        )

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the report in one step and return its path; an OSError names the path."""
        return write_text(path, "\n".join(self._document()) + "\n")

    def _document(self) -> Iterator[str]:
        title = html.escape(self.title)
        yield f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>'
        yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
        yield '<meta name="color-scheme" content="light dark">'
        policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
        yield f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        yield f"<style>{_CSS}</style>\n</head>\n<body>\n<header>\n<h1>{title}</h1>"
        if self.subtitle:
            yield f"<p>{html.escape(self.subtitle)}</p>"
        yield "</header>"
        if len(self._contents) > 1:
            entries = (
                f'<li><a href="#{anchor}">{html.escape(text)}</a></li>' for anchor, text in self._contents
            )
            yield f'<nav aria-label="Contents">\n<ol>\n{chr(10).join(entries)}\n</ol>\n</nav>'
        yield "<main>"
        yield from self._blocks
        yield "</main>\n</body>\n</html>"


def save_figure(figure: Figure, path: str | os.PathLike[str], dpi: int = FIGURE_DPI) -> Path:
    """Write a matplotlib figure as PNG in one step and return its path; an OSError names the path."""
    with replacing(path) as temporary:
        temporary.write_bytes(_png(figure, dpi))
    return Path(path)


def _png(figure: Figure, dpi: int = FIGURE_DPI) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, facecolor="white")
    return buffer.getvalue()


def _width(image: bytes) -> str:
    """Width attribute that shows a PNG of known resolution in its size on paper (96 CSS pixels per inch)."""
    at = image.find(b"pHYs", 0, 1000)  # pixels per metre; PNG specification, section 11.3.4.3
    if at < 0:
        return ""
    pixels = int.from_bytes(image[16:20], "big")
    per_metre = int.from_bytes(image[at + 4 : at + 8], "big")
    return f' width="{96 * pixels / (0.0254 * per_metre):.0f}"' if image[at + 12] == 1 and per_metre else ""


def text_cells(
    rows: Sequence[Mapping[str, Any]], digits: int = 3
) -> tuple[list[str], list[bool], list[list[str]]]:
    """Column names in order of appearance, which of them hold numbers only, and the text of every cell.

    Floats get `digits` decimals; a missing value, None or nan is a dash.
    """
    columns = list(dict.fromkeys(key for row in rows for key in row))
    values = [[row.get(column) for column in columns] for row in rows]
    numeric = [all(_missing(v) or _is_number(v) for v in column) for column in zip(*values, strict=True)]
    return list(map(str, columns)), numeric, [[_text(value, digits) for value in line] for line in values]


def _text(value: Any, digits: int) -> str:
    if _missing(value):
        return "–"
    if _is_number(value) and not isinstance(value, Integral):
        return f"{float(value):.{digits}f}"
    return str(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, Real) and math.isnan(value))


_CSS = """
:root { --ink: #1d2329; --soft: #5b6670; --line: #d9dee3;
  --page: #fff; --band: #f4f6f8; --link: #0b5cad; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ec; --soft: #a3adb7; --line: #3a424a;
    --page: #15191d; --band: #1f252b; --link: #7db8f0; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 62rem;
  background: var(--page); color: var(--ink);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  overflow-wrap: anywhere; -webkit-text-size-adjust: 100%; }
header { border-bottom: 1px solid var(--line); margin-bottom: 1rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .4rem; }
h2 { font-size: 1.25rem; line-height: 1.3; margin: 2.2rem 0 .6rem; scroll-margin-top: 1rem; }
header p, figcaption, caption { color: var(--soft); }
p { margin: 0 0 .9rem; max-width: 46rem; }
a { color: var(--link); }
nav { background: var(--band); border-radius: .5rem; padding: .7rem 1rem; }
nav ol { margin: 0; padding-left: 1.4rem; columns: 16rem; }
.table { overflow: auto; max-height: 85vh; margin: 1rem 0 1.4rem; border: 1px solid var(--line);
  border-radius: .5rem; overflow-wrap: normal; }
table { border-collapse: separate; border-spacing: 0; width: 100%; font-size: .92rem; }
caption { text-align: left; padding: .6rem .8rem; }
th, td { padding: .4rem .8rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
tbody tr:last-child td { border-bottom: 0; }
th { position: sticky; top: 0; background: var(--band); font-weight: 600; white-space: nowrap; }
td:not(.n) { min-width: 8rem; }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
figure { margin: 1rem 0 1.6rem; }
img { display: block; max-width: 100%; height: auto; background: #fff; border-radius: .5rem;
  border: 1px solid var(--line); }
figcaption { margin-top: .5rem; font-size: .92rem; max-width: 46rem; }
@media print { .table { max-height: none; overflow: visible; } figure, tr { break-inside: avoid; } }
"""
