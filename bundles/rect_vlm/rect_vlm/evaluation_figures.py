"""Figures of an evaluation; every function returns a matplotlib Figure and shows nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from medbundles.figure_style import COLORS, INK, LINE, SOFT, frame, legend, quiet
from medbundles.intervals import Entry
from medbundles.resampling import Floats
from numpy.typing import NDArray

from rect_vlm.findings import LESIONS, lesion_title
from rect_vlm.grids import VolumeGrid
from rect_vlm.slice_figures import OUTLINES, Panel, body_box, choose_panels, cut, mark_directions, to_ras

OWN, FLOOR = COLORS[0], "#9AA5B1"  # the model, and all it must beat
ROC_COLUMNS, SLICE_COLUMNS = 5, 4


def arm_bars(
    arms: Mapping[str, Mapping[str, Entry]], metrics: Mapping[str, str], title: str, subtitle: str = ""
) -> Figure:
    """Every arm's value with its interval, a panel per metric; the first arm is the model.

    Args:
        arms: name -> metric -> entry; a metric may be missing in an arm.
        metrics: metric -> heading of its panel.
        title, subtitle: above the panels.
    """
    figure, panels = frame(title, subtitle, 0.6 + 0.34 * len(arms), columns=len(metrics), sharey=True)
    for ax, (metric, heading) in zip(panels, metrics.items(), strict=True):
        ends = [0.05]
        for y, arm in enumerate(arms.values()):
            value, low, high = (arm.get(metric, {}).get(key, np.nan) for key in ("value", "low", "high"))
            if np.isnan(value):
                ax.text(0, y, " –", va="center", size=8, color=SOFT)
                continue
            ax.barh(y, value, color=FLOOR if y else OWN, height=0.62)
            if not np.isnan(low):
                ax.plot([low, high], [y, y], color=INK, lw=1.2)
            ends.append(float(np.nanmax([value, high])))
            ax.text(ends[-1], y, f" {value:.3f}", va="center", size=8, color=INK)
        ax.set_yticks(range(len(arms)), list(arms))
        ax.set(ylim=(len(arms) - 0.5, -0.5), xlim=(0, 1.3 * max(ends)))
        quiet(ax, title=heading, grid="x")
    return figure


def roc_curves(
    probs: Mapping[str, Floats],
    labels: Floats,
    names: Sequence[str],
    areas: Sequence[float],
    subtitle: str = "",
) -> Figure:
    """A ROC curve per finding and arm; the first arm, the model, is named by its area.

    Args:
        probs: (N, K) by the name of the arm.
        labels: (N, K), -1 = unknown.
        names, areas: of the K findings; one without an area has no curve.
        subtitle: under the title.
    """
    from sklearn.metrics import roc_curve

    rows = -(-len(names) // ROC_COLUMNS)
    figure, axes = frame("ROC curves", subtitle, 1.75 * rows, rows=rows, columns=ROC_COLUMNS)
    for ax in axes[len(names) :]:
        ax.set_axis_off()
    for k, (ax, name) in enumerate(zip(axes, names, strict=False)):
        known = labels[:, k] >= 0
        ax.plot([0, 1], [0, 1], color=LINE, lw=0.8)
        if np.isnan(areas[k]):
            ax.text(0.5, 0.5, "one class only", ha="center", va="center", size=7.5, color=SOFT)
        else:
            for color, said in zip((OWN, FLOOR), probs.values(), strict=False):
                false, true, _ = roc_curve(labels[known, k], said[known, k])
                ax.plot(false, true, color=color, lw=1.6 if color == OWN else 1.0)
        ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xticks=(0, 1), yticks=(0, 1), aspect="equal")
        quiet(ax, grid=None)
        ax.tick_params(labelsize=7)
        area = "–" if np.isnan(areas[k]) else f"{areas[k]:.2f}"
        ax.set_title(f"{_wrapped(name)}\n{area}", fontsize=7.5, color=INK)
    lines = [
        Line2D([], [], color=color, label=name) for color, name in zip((OWN, FLOOR), probs, strict=False)
    ]
    figure.legend(handles=lines, loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    return figure


def lesion_overlap(dice: Floats, true_ml: Floats, subtitle: str = "") -> Figure:
    """Dice of every scan with a lesion over the lesion's volume, (N, 5) each, NaN where there is none."""
    figure, (ax,) = frame("Overlap of every lesion", subtitle, 2.8)
    for k, lesion in enumerate(LESIONS):
        known = ~np.isnan(dice[:, k])
        if known.any():
            label = f"{lesion_title(lesion)}, mean {dice[known, k].mean():.2f}"
            ax.plot(
                true_ml[known, k],
                dice[known, k],
                "o",
                ms=5,
                mec=INK,
                mew=0.4,
                color=OUTLINES[lesion],
                label=label,
            )
    ax.set_xscale("log")
    ax.set_ylim(-0.03, 1.03)
    quiet(ax, "true volume (ml)", "Dice")
    if ax.lines:
        legend(ax, loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


def outline_comparison(
    hu: NDArray, found: NDArray, true: NDArray, grid: VolumeGrid, title: str, subtitle: str = ""
) -> Figure:
    """Eight slices of a CT with the outlines of the model solid and the true ones dashed.

    Args:
        hu: (X, Y, Z).
        found, true: label maps (X, Y, Z) on the same voxels, 0 or 1 + index in LESIONS; `true` decides which
            slices are shown, where it has a lesion.
        grid: of the voxels.
        title, subtitle: above the slices.
    """
    affine = grid.affine
    (volume, ras), (outlined, _), (wanted, _) = (to_ras(array, affine) for array in (hu, found, true))
    missing = np.isin(outlined, np.setdiff1d(outlined, wanted))
    panels = choose_panels(volume, np.where(missing, outlined, wanted), ras)
    spacing = grid_spacing(ras)
    view = body_box(volume, spacing)
    rows = -(-len(panels) // SLICE_COLUMNS)
    figure, axes = frame(title, subtitle, 1.8 * rows, rows=rows, columns=SLICE_COLUMNS)
    for ax, panel in zip(axes, panels, strict=True):
        _draw(ax, volume, {"-": outlined, "--": wanted}, panel, spacing, view)
    lines = [
        *(
            Line2D([], [], color=INK, ls=style, label=who)
            for style, who in (("-", "model"), ("--", "true mask"))
        ),
        *(
            Line2D([], [], color=OUTLINES[lesion], lw=2.5, label=lesion_title(lesion))
            for k, lesion in enumerate(LESIONS, start=1)
            if (outlined == k).any() or (wanted == k).any()
        ),
    ]
    figure.legend(handles=lines, loc="outside lower center", ncols=4, fontsize=7.5, frameon=False)
    return figure


def _draw(
    ax: Axes,
    volume: NDArray,
    outlines: Mapping[str, NDArray],
    panel: Panel,
    spacing: Sequence[float],
    view: Sequence[tuple[float, float]],
) -> None:
    up = 1 if panel.axis == 2 else 2  # the axis that runs up the picture
    picture = cut(volume, panel.axis, panel.index)
    low, high = panel.window
    ax.imshow(picture, cmap="gray", vmin=low, vmax=high, aspect=spacing[up] / spacing[0])
    for style, labels in outlines.items():
        shown = cut(labels, panel.axis, panel.index)
        for k, lesion in enumerate(LESIONS, start=1):
            if (shown == k).any():
                ax.contour(shown == k, [0.5], colors=[OUTLINES[lesion]], linewidths=1.0, linestyles=style)
    right, top = picture.shape[1] - 1, picture.shape[0] - 1  # the picture counts from the other ends
    ax.set(xlim=(right - view[0][1] - 0.5, right - view[0][0] + 0.5))
    ax.set(ylim=(top - view[up][0] + 0.5, top - view[up][1] - 0.5), xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    ax.set_title(panel.title, fontsize=7.5, color=INK)
    mark_directions(ax, ("R", "L", *(("A", "P") if panel.axis == 2 else ("S", "I"))))


def grid_spacing(affine: NDArray[np.float64]) -> list[float]:
    """mm per voxel along the axes of an affine (4, 4)."""
    return [float(size) for size in np.linalg.norm(affine[:3, :3], axis=0)]


def _wrapped(name: str) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(name, 18))
