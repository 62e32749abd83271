"""One look for all figures: frame with title and note, colours safe for colour-blind readers, quiet axes."""

from __future__ import annotations

import textwrap
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

INK, SOFT, LINE = "#1d2329", "#5b6670", "#d9dee3"
# Okabe and Ito, Color Universal Design (2008), yellow darkened for thin lines; dashes and markers differ too.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#8C6D00", "#56B4E9", "#E69F00", "#4D4D4D")
DASHES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
MARKERS = "osD^vPX*"
REPORT_WIDTH = 7.2  # inches; at 150 dpi the width of a report's text column

_TITLE, _NOTE = 11.0, 8.5  # points
_BOLD, _PLAIN = 0.0088, 0.0076  # inches per point and character, on the wide side of what texts measure


def frame(
    title: str,
    subtitle: str,
    height: float,
    *,
    width: float = REPORT_WIDTH,
    rows: int = 1,
    columns: int = 1,
    **layout: Any,
) -> tuple[Figure, list[Axes]]:
    """A figure whose axes fill `width` x `height` inches under its title and note, without overlaps."""
    heading = textwrap.wrap(title, int(width / (_TITLE * _BOLD)))
    note = textwrap.wrap(subtitle, int(width / (_NOTE * _PLAIN)))
    title_height = len(heading) * _TITLE * 1.3 / 72
    header = 0.18 + title_height + len(note) * _NOTE * 1.4 / 72
    total = height + header
    figure = Figure(figsize=(width, total))
    FigureCanvasAgg(figure)
    figure.set_layout_engine("constrained", rect=(0, 0, 1, height / total), w_pad=0.08, h_pad=0.06)
    left = 0.1 / width
    figure.text(
        left,
        1 - 0.1 / total,
        "\n".join(heading),
        size=_TITLE,
        weight="bold",
        color=INK,
        va="top",
        linespacing=1.15,
    )
    figure.text(left, 1 - (0.15 + title_height) / total, "\n".join(note), size=_NOTE, color=SOFT, va="top")
    return figure, list(figure.subplots(rows, columns, squeeze=False, **layout).flat)


def quiet(
    ax: Axes,
    xlabel: str = "",
    ylabel: str = "",
    title: str = "",
    grid: Literal["both", "x", "y"] | None = "both",
) -> None:
    """Light grid behind the data, no upper and right frame, small grey labels."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["bottom", "left"]].set_color(SOFT)
    ax.set_axisbelow(True)
    if grid is not None:
        ax.grid(axis=grid, color=LINE, linewidth=0.6)
    ax.tick_params(labelsize=8.5, colors=SOFT, labelcolor=INK)
    ax.set_xlabel(xlabel, fontsize=9, color=INK)
    ax.set_ylabel(ylabel, fontsize=9, color=INK)
    if title:
        ax.set_title(title, fontsize=9.5, color=INK, loc="left")


def legend(ax: Axes, **options: Any) -> None:
    """Legend in the figures' size on a nearly opaque ground."""
    ax.legend(**{"fontsize": 8.5, "framealpha": 0.92, "edgecolor": LINE, "handlelength": 2.4, **options})


def line_style(i: int) -> dict[str, Any]:
    """Colour and dashes of the i-th line."""
    return {"color": COLORS[i % len(COLORS)], "ls": DASHES[i % len(DASHES)]}


def mark_level(ax: Axes, value: float, name: str) -> None:
    """A dotted horizontal line named at its right end."""
    ax.axhline(value, color=SOFT, lw=1, ls=":", zorder=2.5)
    ax.annotate(
        name, (1, value), (4, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
        va="center", size=8, color=SOFT,
    )  # fmt: skip
