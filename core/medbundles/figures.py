"""Figures that every bundle's reports draw: learning curves, and differences of methods with intervals."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from medbundles.figure_style import COLORS, INK, LINE, SOFT, frame, legend, line_style, quiet
from medbundles.resampling import Floats

Series = Mapping[str, ArrayLike]  # name -> (value, low, high)


def history_curves(
    path: Path, terms: Sequence[str] | None = None, title: str = "Training", subtitle: str = ""
) -> Figure | None:
    """Learning curves of a history that TermLogger wrote, None where there is none.

    Every column called `val_` is a metric; losses are those of `terms` that were logged, default all others.
    """
    if not path.is_file():
        return None
    history = [json.loads(line) for line in path.read_text().splitlines()]
    columns = list(dict.fromkeys(key for epoch in history for key in epoch if key != "epoch"))
    metrics = [key for key in columns if key.startswith("val_")]
    losses = [key for key in columns if not key.startswith("val_")]
    if terms is not None:
        losses = [term for term in terms if term in history[0]]
    return learning_curves(history, losses=losses, metrics=metrics, title=title, subtitle=subtitle)


def learning_curves(
    history: Sequence[Mapping[str, float | None]],
    *,
    losses: Sequence[str],
    metrics: Sequence[str],
    title: str = "Training",
    subtitle: str = "",
) -> Figure:
    """Losses and validation metrics over the epochs: rows with `epoch` and the named columns.

    A line bridges missing values and nan. The epoch with the highest first metric is marked.
    """
    epochs = np.array([row["epoch"] for row in history], dtype=float)
    height = 2.9 + 0.2 * math.ceil(max(len(losses), len(metrics) + 1) / 2)
    figure, panels = frame(f"{title}, {len(epochs)} epochs", subtitle, height, columns=2)
    for ax, names, heading in zip(panels, (losses, metrics), ("training loss", "validation"), strict=True):
        for i, name in enumerate(names):
            values = np.array([row.get(name) for row in history], dtype=float)
            known = ~np.isnan(values)
            marker = "." if known.sum() < 40 else None
            ax.plot(epochs[known], values[known], **line_style(i), lw=1.5, marker=marker, label=name)
            if ax is panels[1] and i == 0 and known.any():
                best = int(np.nanargmax(values))
                label = f"best: {values[best]:.3f}, epoch {epochs[best]:.0f}"
                ax.axvline(epochs[best], color=LINE, lw=1.5, zorder=0)
                ax.plot(epochs[best], values[best], "o", mfc="none", mec=INK, ms=9, label=label)
        quiet(ax, "epoch", "", heading)
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        margin = 0.5 + 0.02 * np.ptp(epochs)  # also of a single epoch
        ax.set_xlim(epochs.min() - margin, epochs.max() + margin)
        if names:
            legend(
                ax, loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2, frameon=False, columnspacing=1
            )
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
        rows = interval_rows([list(np.asarray(row)) for row in methods.values()], len(methods), regime)
        ax.axvline(0, color=SOFT, lw=1.2)
        for y, row in enumerate(rows):
            mean, low, high = map(float, row)
            color = COLORS[0] if low > 0 else COLORS[1] if high < 0 else SOFT
            fill = "white" if color == SOFT else color
            look: dict[str, Any] = {"color": color, "mfc": fill, "ms": 6, "capsize": 3, "lw": 1.5}
            ax.errorbar([mean], [y], xerr=interval_arms(row[None]), fmt="o", **look)
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


def interval_rows(values: ArrayLike, n: int, name: str) -> Floats:
    """Rows (n,3) of value, low and high of the series `name`; ValueError for any other shape."""
    rows = np.asarray(values, dtype=np.float64)
    if rows.shape != (n, 3):
        raise ValueError(f"series {name!r} must hold {n} rows of value, low, high, got shape {rows.shape}")
    return rows


def interval_arms(rows: Floats) -> Floats:
    """Lengths (2,n) of the interval below and above each value, 0 where there is none."""
    return np.nan_to_num(np.stack([rows[:, 0] - rows[:, 1], rows[:, 2] - rows[:, 0]]).clip(min=0))
