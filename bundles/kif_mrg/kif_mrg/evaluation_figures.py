"""Figures of an evaluation; every function returns a matplotlib Figure and shows nothing.

`subtitle` stands under the title: say there what the cases are, and that they are simulated if they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from medbundles.figure_style import COLORS, INK, SOFT, frame, legend, quiet
from medbundles.intervals import Entry
from numpy.typing import ArrayLike

OWN, FLOOR = COLORS[0], "#9AA5B1"  # the model's bar, and all it must beat
STATE_TICKS = ("blank", "pos", "neg", "unc")


def floor_bars(
    arms: Mapping[str, Mapping[str, Entry]], metrics: Mapping[str, str], *, title: str, subtitle: str = ""
) -> Figure:
    """Every arm's value with its interval, a panel per metric; the first arm is the model.

    Args:
        arms: name -> metric -> entry.
        metrics: metric -> heading of its panel.
    """
    height = 0.7 + 0.36 * len(arms)
    figure, panels = frame(title, subtitle, height, columns=len(metrics), sharey=True)
    for ax, (metric, heading) in zip(panels, metrics.items(), strict=True):
        rows = np.array([[arm[metric][key] for key in ("value", "low", "high")] for arm in arms.values()])
        colors = [OWN, *[FLOOR] * (len(rows) - 1)]
        ax.barh(range(len(rows)), np.nan_to_num(rows[:, 0]), color=colors, height=0.62)
        arms_of = np.nan_to_num(np.stack([rows[:, 0] - rows[:, 1], rows[:, 2] - rows[:, 0]]).clip(min=0))
        look: dict[str, Any] = {"fmt": "none", "ecolor": INK, "elinewidth": 1.2, "capsize": 2.5}
        ax.errorbar(rows[:, 0], range(len(rows)), xerr=arms_of, **look)
        for y, (value, _, high) in enumerate(rows):
            text = "–" if np.isnan(value) else f"{value:.3f}"
            tip = np.nanmax([0, value, high])
            ax.annotate(text, (tip, y), (4, 0), textcoords="offset points", va="center", size=8, color=INK)
        ax.axvline(np.nan_to_num(rows[0, 0]), color=OWN, lw=0.9, ls=":", zorder=0)
        ax.set_yticks(range(len(rows)), list(arms))
        ax.set_ylim(len(rows) - 0.5, -0.5)
        end = 1.24 * max(0.05, float(np.nanmax(np.nan_to_num(rows))))  # room for the numbers
        ax.set_xticks([x for x in MaxNLocator(4).tick_values(0, end) if x <= min(end, 1)])
        ax.set_xlim(0, end)
        quiet(ax, "", "", heading, grid="x")
    return figure


def condition_f1(
    names: Sequence[str], positives: Sequence[int], series: Mapping[str, ArrayLike], *, subtitle: str = ""
) -> Figure:
    """F1 of being positive, a marker per series, for the conditions with positive references.

    Args:
        names: of the C conditions.
        positives: positive references of each, shown beside its name.
        series: name -> F1 (C,), nan where it is not defined.
    """
    shown = [c for c, count in enumerate(positives) if count]
    figure, (ax,) = frame("F1 of each condition", subtitle, 1.1 + 0.28 * max(len(shown), 1))
    looks = (("o", OWN, OWN), ("D", COLORS[2], "white"), ("s", FLOOR, "white"))
    for (name, rows), (marker, color, fill) in zip(series.items(), looks, strict=False):
        values = np.asarray(rows, dtype=float)[shown]
        look: dict[str, Any] = {"color": color, "mfc": fill, "mew": 1.5, "ms": 6.5, "clip_on": False}
        ax.plot(values, range(len(shown)), marker, **look, label=name)
    ax.set_yticks(range(len(shown)), [f"{names[c]} ({positives[c]})" for c in shown])
    ax.set_ylim(len(shown) - 0.4, -0.6)
    ax.set_xlim(-0.02, 1.02)
    quiet(ax, "F1 (in brackets: positive references)")
    legend(ax, loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False)
    return figure


def state_confusions(matrices: Mapping[str, ArrayLike], *, subtitle: str = "") -> Figure:
    """A confusion matrix (4, 4) per condition, rows the labels: cases, the share of the row as shade."""
    columns = min(3, len(matrices))
    rows = -(-len(matrices) // columns)
    title = "States by the diagnosis head"
    figure, panels = frame(
        title, subtitle, 0.3 + 2.25 * rows, width=max(2.4 * columns, 4.0), rows=rows, columns=columns
    )
    for ax in panels[len(matrices) :]:
        ax.set_axis_off()
    for ax, (name, matrix) in zip(panels, matrices.items(), strict=False):
        cases = np.asarray(matrix)
        share = cases / np.maximum(cases.sum(axis=1, keepdims=True), 1)
        ax.imshow(share, cmap="Blues", vmin=0, vmax=1)
        for (i, j), part in np.ndenumerate(share):
            if cases[i].sum():
                color = "white" if part > 0.55 else INK
                ax.text(j, i, str(cases[i, j]), ha="center", va="center", color=color, size=9)
        ax.set_xticks(range(4), STATE_TICKS)
        ax.set_yticks(range(4), STATE_TICKS)
        quiet(ax, "diagnosed", "label", name, grid=None)
        ax.tick_params(length=0)
    return figure


def report_lengths(
    reports: Sequence[str], references: Sequence[str], *, subtitle: str = "", bins: int = 24
) -> Figure:
    """Words of the model's reports and of the references, over the same bins."""
    said, true = ([len(text.split()) for text in texts] for texts in (reports, references))
    low, high = min(said + true), max(said + true)
    width = max(1, -(-(high - low + 1) // bins))
    edges = np.arange(low, high + 1 + width, width) - 0.5
    figure, (ax,) = frame("Length of the reports", subtitle, 2.7)
    look: dict[str, Any] = {"bins": edges, "histtype": "stepfilled", "lw": 1.5}
    ax.hist(true, **look, color=FLOOR, alpha=0.6, label=f"references, mean {np.mean(true):.1f}")
    ax.hist(said, **{**look, "histtype": "step"}, color=OWN, label=f"model, mean {np.mean(said):.1f}")
    for mean, color in ((np.mean(true), SOFT), (np.mean(said), OWN)):
        ax.axvline(float(mean), color=color, lw=1, ls=":")
    ax.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    quiet(ax, "words", "reports", "", grid="y")
    legend(ax, loc="upper right")
    return figure
