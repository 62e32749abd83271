"""Figures that compare methods or conditions: over dose, over modalities, and against a reference.

A `Series` maps a name to rows (value, low, high), one per point; nan limits draw no interval.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from react_kd.figure_style import COLORS, INK, MARKERS, SOFT, frame, legend, line_style, mark_level, quiet
from react_kd.resampling import Floats

Series = Mapping[str, ArrayLike]


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
        rows = _rows(values, len(levels), name)
        x = np.arange(len(levels)) + 0.06 * (i - (len(series) - 1) / 2)
        ax.errorbar(
            x, rows[:, 0], _arms(rows), **line_style(i), marker=MARKERS[i % len(MARKERS)], ms=5, lw=1.6,
            capsize=2.5, elinewidth=1, label=name,
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
        rows = _rows(values, len(conditions), name)
        x = np.arange(len(conditions)) + width * (i - (len(series) - 1) / 2)
        ax.bar(x, rows[:, 0], 0.9 * width, color=COLORS[i % len(COLORS)], label=name)
        ax.errorbar(x, rows[:, 0], _arms(rows), fmt="none", ecolor=INK, elinewidth=1, capsize=2.5)
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


def comparison_forest(
    differences: Mapping[str, Series],
    *,
    reference: str,
    n_runs: int,
    metric: str = "macro AUC",
    confidence: float = 0.95,
    subtitle: str = "",
) -> Figure:
    """Paired differences to a reference method: regime -> method -> (mean, low, high), one panel per regime.

    A filled marker means that the interval excludes 0.
    """
    title = f"Difference in {metric} to {reference}, {100 * confidence:g} % CI ({n_runs} paired runs)"
    lengths = [len(methods) + 0.5 for methods in differences.values()]
    height = 0.6 + 0.27 * sum(lengths) + 0.35 * len(lengths)
    figure, panels = frame(title, subtitle, height, rows=len(lengths), sharex=True, height_ratios=lengths)
    for ax, (regime, methods) in zip(panels, differences.items(), strict=True):
        rows = _rows([list(np.asarray(row)) for row in methods.values()], len(methods), regime)
        ax.axvline(0, color=SOFT, lw=1.2)
        for y, row in enumerate(rows):
            mean, low, high = map(float, row)
            color = COLORS[0] if low > 0 else COLORS[1] if high < 0 else SOFT
            fill = "white" if color == SOFT else color
            look: dict[str, Any] = {"color": color, "mfc": fill, "ms": 6, "capsize": 3, "lw": 1.5}
            ax.errorbar([mean], [y], xerr=_arms(row[None]), fmt="o", **look)
            text = f"{mean:+.3f}" if np.isnan(low) else f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"
            place: dict[str, Any] = {
                "xycoords": ("axes fraction", "data"),
                "va": "center",
                "size": 8,
                "color": INK,
            }
            ax.annotate(text.replace("-", "−"), (1.01, y), **place)
        ax.set_yticks(range(len(methods)), list(methods))
        ax.set_ylim(len(methods) - 0.4, -0.6)
        quiet(ax, "", "", regime, grid="x")
    panels[-1].xaxis.set_major_locator(MaxNLocator(6))
    panels[-1].set_xlabel(f"better than {reference} →", fontsize=9, color=INK)
    return figure


def _rows(values: ArrayLike, n: int, name: str) -> Floats:
    rows = np.asarray(values, dtype=np.float64)
    if rows.shape != (n, 3):
        raise ValueError(f"series {name!r} must hold {n} rows of value, low, high, got shape {rows.shape}")
    return rows


def _arms(rows: Floats) -> Floats:
    """Lengths (2,n) of the interval below and above each value, 0 where there is none."""
    return np.nan_to_num(np.stack([rows[:, 0] - rows[:, 1], rows[:, 2] - rows[:, 0]]).clip(min=0))


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
