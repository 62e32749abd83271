"""Figures of one case: the region graph on its CT slice and the explanation map over axial slices.

Volumes are RAS arrays (X,Y,Z).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from medbundles.figure_style import COLORS, INK, REPORT_WIDTH, frame, quiet
from numpy.typing import ArrayLike, NDArray

from react_kd.slice_view import extent, mark_sides, outline, radiological, show

Array = NDArray[np.float64]
ABDOMEN_HU = (-160.0, 240.0)  # the window the networks see
OUTLINE = "#00E5FF"
HEAT, AFFINITY = "inferno", "viridis"


def cam_overlay(
    ct: ArrayLike,
    cam: ArrayLike,
    mass: ArrayLike,
    *,
    spacing: Sequence[float],
    slices: Sequence[int] | None = None,
    n_slices: int = 4,
    window: tuple[float, float] = ABDOMEN_HU,
    title: str = "Topo-Grad-CAM",
    subtitle: str = "",
) -> Figure:
    """CT slices above, the same with the map (0 to 1) and the outline of the mass below; (X,Y,Z) each.

    `spacing` in mm, `window` in the units of `ct`. Without `slices`, `n_slices` are spread over the extent
    of the mass, or of the map where there is no mass, with the map's peak among them. The view ends 40 mm
    beside map and mass.

    Raises:
        ValueError: the volumes differ in shape, or there are not 1 to 6 slices.
    """
    volumes = {"ct": ct, "cam": cam, "mass": mass}
    image, heat, lesion = (np.asarray(volume, dtype=np.float64) for volume in volumes.values())
    _same_shape({name: np.shape(volume) for name, volume in volumes.items()})
    if not 1 <= (n_slices if slices is None else len(slices)) <= 6:
        raise ValueError(f"the montage must have 1 to 6 slices, got {n_slices=} {slices=}")
    chosen = _spread(lesion if lesion.any() else heat, heat, n_slices) if slices is None else list(slices)
    rows, columns = extent(np.maximum(heat, lesion).max(axis=2) > 0, spacing, margin=40)
    width = (REPORT_WIDTH - 1.0) / len(chosen)
    height = width * np.ptp(rows) * spacing[1] / (np.ptp(columns) * spacing[0])
    figure, axes = frame(title, subtitle, 0.4 + 2 * height, columns=len(chosen), rows=2)
    for i, z in enumerate(chosen):
        plain, overlay = axes[i], axes[i + len(chosen)]
        for ax in (plain, overlay):
            show(ax, image[:, :, z], spacing, cmap="gray", vmin=window[0], vmax=window[1])
            ax.set(xlim=columns, ylim=rows[::-1])
        shade = heat[:, :, z].clip(0, 1)
        show(overlay, shade, spacing, cmap=HEAT, vmin=0, vmax=1, alpha=0.8 * radiological(shade) ** 0.5)
        outline(overlay, lesion[:, :, z], OUTLINE)
        plain.set_title(f"slice {z}", fontsize=8.5, color=INK)
    mark_sides(axes[0])
    bar = figure.colorbar(ScalarMappable(Normalize(0, 1), HEAT), ax=axes, shrink=0.8, pad=0.015, aspect=30)
    bar.set_label("map value (outline: mass)", size=8.5)
    bar.ax.tick_params(labelsize=8)
    return figure


def region_graph_panel(
    ct: ArrayLike,
    occupancy: ArrayLike,
    names: Sequence[str],
    edges: ArrayLike,
    *,
    spacing: Sequence[float],
    index: int | None = None,
    window: tuple[float, float] = ABDOMEN_HU,
    title: str = "Region graph",
    subtitle: str = "",
) -> Figure:
    """The nodes over an axial CT slice, and their cosine edges as a matrix beside it.

    `ct` (X,Y,Z), `occupancy` (K,X,Y,Z) of the nodes on the same grid, `names` K, `edges` (K,K), `spacing` mm.
    An empty node is left out. `index` is the slice, by default the one that cuts most nodes. A node sits at
    its centroid in the slice, or hollow at the projection of its centroid if the slice misses it; nodes that
    would cover one another are moved apart.

    Raises:
        ValueError: shapes disagree or every node is empty.
    """
    image = np.asarray(ct, dtype=np.float64)
    share, cosine, labels = _present(occupancy, edges, names)
    _same_shape({"ct": image.shape, "occupancy of one node": share.shape[1:]})
    z = _fullest_slice(share) if index is None else index
    off_diagonal = cosine[~np.eye(len(labels), dtype=bool)]
    scale = Normalize(np.floor(off_diagonal.min(initial=0.9) * 10) / 10, 1.0)
    figure, (anatomy, matrix) = frame(title, subtitle, 3.4, columns=2, width_ratios=(1.1, 1))
    show(anatomy, image[:, :, z], spacing, cmap="gray", vmin=window[0], vmax=window[1])
    rows, columns = extent(share.max(axis=(0, 3)) > 0, spacing, margin=25)
    anatomy.set(xlim=columns, ylim=rows[::-1])
    _draw_graph(anatomy, share, cosine, z, scale)
    mark_sides(anatomy)
    missed = not share[..., z].any(axis=(1, 2)).all()
    anatomy.set_title(f"slice {z}" + "; hollow: in other slices" * missed, fontsize=8.5, color=INK)
    volumes = share.sum(axis=(1, 2, 3)) * float(np.prod(spacing)) / 1000
    labels = [f"{name}, {volume:.0f} mL" for name, volume in zip(labels, volumes, strict=True)]
    _draw_matrix(matrix, cosine, labels, scale)
    bar = figure.colorbar(ScalarMappable(scale, AFFINITY), ax=matrix, shrink=0.75, pad=0.02)
    bar.set_label("cosine of node features", size=8.5)
    bar.ax.tick_params(labelsize=8)
    return figure


def _present(occupancy: ArrayLike, edges: ArrayLike, names: Sequence[str]) -> tuple[Array, Array, list[str]]:
    """Occupancy, edges and names of the nodes that hold a voxel."""
    share, cosine = np.asarray(occupancy, dtype=np.float64), np.asarray(edges, dtype=np.float64)
    k = len(names)
    if share.ndim != 4 or len(share) != k or cosine.shape != (k, k):
        raise ValueError(
            f"{k} names need occupancy ({k},X,Y,Z) and edges ({k},{k}), got {share.shape} and {cosine.shape}"
        )
    held = [i for i in range(k) if share[i].any()]
    if not held:
        raise ValueError(f"at least one of the {k} nodes must hold a voxel, got an empty occupancy")
    return share[held], cosine[np.ix_(held, held)], [names[i] for i in held]


def _draw_graph(ax: Axes, share: Array, cosine: Array, z: int, scale: Normalize) -> None:
    here = share[..., z]  # (N,X,Y)
    cut = here.max(axis=(1, 2)) > 0
    shown = np.where(cut[:, None, None], here, share.sum(axis=3))
    x, y = np.meshgrid(*map(np.arange, shown.shape[1:]), indexing="ij")
    weight = shown / shown.sum(axis=(1, 2), keepdims=True)
    centroid = np.array([(weight * axis).sum(axis=(1, 2)) for axis in (x, y)])
    drawn = np.array(shown.shape[1:])[:, None] - 1 - centroid  # (2,N): column, row of the view
    column, row = _apart(drawn, 0.11 * abs(np.subtract(*ax.get_xlim())))
    for i, j in zip(*np.triu_indices(len(share), 1), strict=True):
        shadow = [withStroke(linewidth=3, foreground="#00000080")]
        color = colormaps[AFFINITY](scale(cosine[i, j]))
        ax.plot(column[[i, j]], row[[i, j]], color=color, lw=1.8, path_effects=shadow, zorder=3)
    text: dict[str, Any] = {"size": 7.5, "weight": "bold", "ha": "center", "va": "center_baseline"}
    for node in range(len(share)):
        own = COLORS[node % len(COLORS)]
        outline(ax, here[node], own)
        face, edge = (own, "white") if cut[node] else ("#202428", own)
        ax.plot(column[node], row[node], "o", ms=13, mfc=face, mec=edge, mew=1.6, zorder=4)
        ax.annotate(str(node + 1), (column[node], row[node]), color="white", **text, zorder=5)


def _apart(points: Array, distance: float) -> Array:
    """Push points (2,N) away from each other until any two are `distance` apart, or nearly."""
    moved = points + 1e-3 * np.arange(points.shape[1])  # tells equal points apart
    for _ in range(100):
        offset = moved[:, :, None] - moved[:, None, :]  # (2,N,N)
        length = np.linalg.norm(offset, axis=0) + 1e-9
        moved = moved + 0.25 * (offset / length * np.maximum(distance - length, 0)).sum(axis=2)
    return moved


def _draw_matrix(ax: Axes, cosine: Array, labels: Sequence[str], scale: Normalize) -> None:
    shown = np.where(np.eye(len(labels), dtype=bool), np.nan, cosine)
    ax.imshow(shown, cmap=AFFINITY, norm=scale)
    for (i, j), value in np.ndenumerate(shown):
        if len(labels) <= 8 and i != j:
            color = "white" if scale(value) < 0.6 else INK
            ax.text(j, i, f"{value:.2f}".replace("-", "−"), ha="center", va="center", size=7.5, color=color)
    quiet(ax, grid=None)
    ax.set_xticks(range(len(labels)), [str(i + 1) for i in range(len(labels))])
    ax.set_yticks(range(len(labels)), [f"{i + 1}  {label}" for i, label in enumerate(labels)])
    ax.tick_params(labelsize=7.5, length=0)


def _spread(volume: Array, heat: Array, n_slices: int) -> list[int]:
    """The middle slices of `n_slices` equal parts of what `volume` spans, one moved to the peak of `heat`."""
    depth = volume.shape[2]
    if depth <= n_slices:
        return list(range(depth))
    held = [z for z in range(depth) if volume[:, :, z].any()] or [0, depth - 1]
    lacking = max(n_slices - (held[-1] - held[0] + 1), 0)
    low = min(max(held[0] - lacking // 2, 0), depth - n_slices)
    span = max(held[-1] - low + 1, n_slices)
    chosen = [low + int((i + 0.5) * span / n_slices) for i in range(n_slices)]
    if heat.any():
        peak = int(heat.max(axis=(0, 1)).argmax())
        chosen[int(np.argmin(np.abs(np.subtract(chosen, peak))))] = peak
    return sorted(chosen)


def _fullest_slice(share: Array) -> int:
    cut = share.any(axis=(1, 2)).sum(axis=0)  # nodes per slice
    return int(np.lexsort((share.sum(axis=(0, 1, 2)), cut))[-1])


def _same_shape(shapes: dict[str, tuple[int, ...]]) -> None:
    if len(set(shapes.values())) != 1 or len(next(iter(shapes.values()))) != 3:
        raise ValueError(f"volumes must share one shape (X,Y,Z), got {shapes}")
