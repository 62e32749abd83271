"""Figures that compare methods or conditions: over dose, over modalities, and against a reference.

A `Series` maps a name to rows (value, low, high), one per point; nan limits draw no interval.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from medbundles.figure_style import COLORS, INK, MARKERS, frame, legend, line_style, mark_level, quiet
from medbundles.figures import Series, interval_arms, interval_rows


def dose_curve(
    levels: Sequence[float | str],
    series: Series,
    *,
    noise_model: str,
    n: int,
    metric: str = "macro AUC",
    chance: float | None = 0.5,
    subtitle: str = "",
) -> Figure:
    """A metric over L CT dose levels in the order given, full dose first; each series (L,3).

    `levels` are photons per ray; "full" or infinity is the undegraded scan. The axis names the noise model,
    as the same number of photons means different noise in different models.
    """
    figure, (ax,) = frame(f"{_upper(metric)} by CT dose (n = {n})", subtitle, 3.6)
    lowest = 1.0 if chance is None else chance
    for i, (name, values) in enumerate(series.items()):
        rows = interval_rows(values, len(levels), name)
        x = np.arange(len(levels)) + 0.06 * (i - (len(series) - 1) / 2)
        ax.errorbar(
            x, rows[:, 0], interval_arms(rows), **line_style(i), marker=MARKERS[i % len(MARKERS)],
            ms=5, lw=1.6, capsize=2.5, elinewidth=1, label=name,
        )  # fmt: skip
        lowest = float(np.fmin(lowest, np.nanmin(rows)))
    ax.set_xticks(range(len(levels)), [_dose_label(level) for level in levels])
    ax.set_ylim(lowest - 0.03, 1.01)
    quiet(ax, f"photons per ray ({noise_model} noise model)", metric)
    if chance is not None:
        mark_level(ax, chance, "chance")
    legend(ax, loc="best", ncols=1 + len(series) // 5)
    return figure


def modality_bars(
    conditions: Sequence[str],
    series: Series,
    *,
    n: int,
    metric: str = "macro AUC",
    chance: float | None = 0.5,
    subtitle: str = "",
) -> Figure:
    """A metric by the M conditions of available modalities, one bar per method; each series (M,3)."""
    figure, (ax,) = frame(f"{_upper(metric)} by available modality (n = {n})", subtitle, 3.6)
    width = 0.8 / len(series)
    for i, (name, values) in enumerate(series.items()):
        rows = interval_rows(values, len(conditions), name)
        x = np.arange(len(conditions)) + width * (i - (len(series) - 1) / 2)
        ax.bar(x, rows[:, 0], 0.9 * width, color=COLORS[i % len(COLORS)], label=name)
        ax.errorbar(x, rows[:, 0], interval_arms(rows), fmt="none", ecolor=INK, elinewidth=1, capsize=2.5)
        for at, (value, _, high) in zip(x, rows, strict=True):
            if len(series) <= 4 and not np.isnan(value):
                point = (at, float(np.fmax(value, high)))
                ax.annotate(f"{value:.2f}", point, (0, 2), textcoords="offset points", ha="center", size=7.5)
    ax.set_xticks(range(len(conditions)), conditions)
    ax.set_ylim(0, 1.1)
    ax.set_xlim(-0.5, len(conditions) - 0.5)
    ax.set_yticks(np.linspace(0, 1, 6))
    quiet(ax, "", metric, grid="y")
    if chance is not None:
        mark_level(ax, chance, "chance")
    figure.legend(loc="outside lower center", ncols=4, fontsize=8.5, frameon=False)
    return figure


def _dose_label(level: float | str) -> str:
    if isinstance(level, str):
        return level
    if math.isinf(level):
        return "full"
    exponent = math.floor(math.log10(level))
    factor = level / 10**exponent
    return rf"$10^{{{exponent}}}$" if math.isclose(factor, 1) else rf"${factor:g}\times10^{{{exponent}}}$"


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]
