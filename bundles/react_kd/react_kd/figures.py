"""Figures of an evaluation and of a training; every function returns a matplotlib Figure and shows nothing.

All figures of the bundle can be had from here. `subtitle` stands under the title: say there what the cases
are, and that they are simulated if they are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from medbundles.figure_style import COLORS, INK, LINE, SOFT, frame, legend, line_style, quiet
from medbundles.figures import comparison_forest, learning_curves
from numpy.typing import ArrayLike

from react_kd.image_figures import cam_overlay, region_graph_panel
from react_kd.metrics import value_and_interval
from react_kd.sweep_figures import dose_curve, modality_bars

__all__ = [
    "cam_overlay", "comparison_forest", "confusion", "decision_curve", "dose_curve", "learning_curves",
    "modality_bars", "region_graph_panel", "reliability", "roc",
]  # fmt: skip


def roc(probs: ArrayLike, labels: ArrayLike, evaluation: Mapping[str, Any], *, subtitle: str = "") -> Figure:
    """One-vs-rest ROC curves per class, macro and micro, with AUC and interval of `metrics.evaluate`.

    `probs` (N,K), `labels` (N,). The macro curve is the mean sensitivity at each false positive rate.
    """
    from sklearn.metrics import roc_curve

    p, positive = np.asarray(probs), np.eye(len(evaluation["classes"]))[np.asarray(labels)]
    figure, (ax,) = frame(_titled("One-vs-rest ROC", evaluation), subtitle, 5, width=5.8)
    grid = np.linspace(0, 1, 501)
    sensitivities = []
    for k, name in enumerate(evaluation["classes"]):
        label = f"{_auc_label(evaluation, name)}, n = {evaluation['support'][name]}"
        if not 0 < positive[:, k].sum() < len(p):
            ax.plot([], [], **line_style(k), label=label)
            continue
        fpr, tpr, _ = roc_curve(positive[:, k], p[:, k], drop_intermediate=False)
        sensitivities.append(np.interp(grid, fpr, tpr))
        ax.plot(fpr, tpr, **line_style(k), lw=1.7, label=label)
    if len(sensitivities) == p.shape[1]:
        macro = [0, *np.mean(sensitivities, axis=0)]
        ax.plot([0, *grid], macro, color=INK, lw=2.3, label=_auc_label(evaluation, "macro"))
    fpr, tpr, _ = roc_curve(positive.ravel(), p.ravel())
    ax.plot(fpr, tpr, color=SOFT, lw=1.3, label=_auc_label(evaluation, "micro"))
    ax.plot([0, 1], [0, 1], color=LINE, lw=1, zorder=0)
    ax.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.02), aspect="equal")
    quiet(ax, "1 − specificity", "sensitivity")
    confidence = 100 * evaluation["bootstrap"]["confidence"]
    legend(ax, loc="lower right", title=f"AUC [{confidence:g} % CI, patient bootstrap]", title_fontsize=8.5)
    return figure


def decision_curve(curves: Mapping[str, Mapping[str, Any]], *, n: int, subtitle: str = "") -> Figure:
    """Macro net benefit over the threshold probability, by method, with treat-all and treat-none.

    `curves` maps a name to `metrics.evaluate(...)["decision_curve"]`, all on the same n cases; a single one
    is drawn with its bootstrap interval.
    """
    figure, (ax,) = frame(f"Decision curve, macro over classes (n = {n})", subtitle, 3.8)
    first = next(iter(curves.values()))
    ax.plot(first["thresholds"], first["all_macro"], color=SOFT, lw=1.2, ls="--", label="treat all")
    ax.axhline(0, color=SOFT, lw=1.2, label="treat none")
    for i, (name, curve) in enumerate(curves.items()):
        ax.plot(curve["thresholds"], curve["macro"], **line_style(i), lw=1.8, label=name)
        if len(curves) == 1:
            band = np.array([curve["macro_low"], curve["macro_high"]], dtype=float)
            shade: dict[str, Any] = {"color": COLORS[i], "alpha": 0.15, "lw": 0}
            ax.fill_between(curve["thresholds"], *band, **shade, label="bootstrap interval")
    top = max(0.1, *(max(curve["macro"]) for curve in curves.values()))
    ax.set(xlim=(0, 1), ylim=(-0.3 * top, 1.15 * top))
    quiet(ax, "threshold probability", "net benefit")
    legend(ax, loc="upper right", ncols=1 + len(curves) // 5)
    return figure


def confusion(matrix: ArrayLike, classes: Sequence[str], *, subtitle: str = "") -> Figure:
    """Confusion matrix (K,K), rows the true class: cases, and their share of the row as shade."""
    cases = np.asarray(matrix)
    figure, (ax,) = frame(f"Confusion matrix (n = {int(cases.sum())})", subtitle, 3.8, width=4.8)
    share = cases / np.maximum(cases.sum(axis=1, keepdims=True), 1)
    image = ax.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for (i, j), part in np.ndenumerate(share):
        color = "white" if part > 0.55 else INK
        ax.text(j, i, f"{cases[i, j]}\n{part:.0%}", ha="center", va="center", color=color, size=10)
    ax.set_xticks(range(len(classes)), classes)
    ax.set_yticks(range(len(classes)), classes, rotation=90, va="center")
    quiet(ax, "predicted", "true", grid=None)
    ax.tick_params(length=0)
    bar = figure.colorbar(image, ax=ax, shrink=0.8, format=lambda v, _: f"{v:.0%}")
    bar.set_label("share of the true class", size=8.5)
    bar.ax.tick_params(labelsize=8)
    return figure


def reliability(evaluation: Mapping[str, Any], *, subtitle: str = "") -> Figure:
    """Accuracy over confidence of the most probable class per bin, and the number of cases in each bin."""
    bins = {key: np.asarray(values, dtype=float) for key, values in evaluation["reliability"].items()}
    value, low, high = value_and_interval(evaluation, "ece")
    title = _titled("Reliability", evaluation)
    figure, (ax, counts) = frame(title, subtitle, 5.0, rows=2, width=5.2, height_ratios=(3, 1), sharex=True)
    edges = np.linspace(0, 1, len(bins["count"]) + 1)
    ax.plot([0, 1], [0, 1], color=SOFT, lw=1.2, ls="--", label="perfectly calibrated")
    area = 20 + 180 * bins["count"] / bins["count"].max()
    points: dict[str, Any] = {"s": area, "color": COLORS[0], "alpha": 0.85, "lw": 0, "zorder": 3}
    ax.scatter(bins["confidence"], bins["accuracy"], **points, label="bin, area by cases")
    ax.vlines(bins["confidence"], bins["confidence"], bins["accuracy"], color=COLORS[1], lw=1.4, label="gap")
    ax.set(xlim=(0, 1), ylim=(-0.03, 1.03))
    quiet(ax, "", "accuracy", f"expected calibration error {_with_interval(value, low, high)}")
    legend(ax, loc="upper left", markerscale=0.6)
    counts.bar(edges[:-1], bins["count"], np.diff(edges), align="edge", color=COLORS[0], ec="white", lw=0.8)
    quiet(counts, "confidence of the predicted class", "cases", grid="y")
    return figure


def _titled(title: str, evaluation: Mapping[str, Any]) -> str:
    cases, patients = evaluation["n_cases"], evaluation["n_patients"]
    return f"{title} (n = {cases}" + (")" if cases == patients else f" scans of {patients} patients)")


def _auc_label(evaluation: Mapping[str, Any], name: str) -> str:
    value, low, high = value_and_interval(evaluation, f"auc_{name}")
    return f"{name}: not defined" if math.isnan(value) else f"{name}: {_with_interval(value, low, high)}"


def _with_interval(value: float, low: float, high: float) -> str:
    return f"{value:.3f}" if math.isnan(low) else f"{value:.3f} [{low:.3f}, {high:.3f}]"
