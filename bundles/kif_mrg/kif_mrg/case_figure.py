"""The figure of one case: the radiograph, and where in it the evidence for each finding lies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from medbundles.figure_style import INK, SOFT
from numpy.typing import NDArray
from torch import Tensor

from kif_mrg.explain import Evidence

DISPLAY = 480  # pixels of the longer side of a picture on the page
HEAT = "inferno"
Box = tuple[float, float, float, float]  # left, right, bottom, top in pixels, as matplotlib's extent


def case_figure(
    pictures: Sequence[Tensor], evidence: Sequence[Evidence], titles: Sequence[str], field: float
) -> Figure:
    """The picture of every view, and beside it attention (above) and Grad-CAM (below) of every finding.

    Args:
        pictures: per view (3, H, W) in 0..1, top row first.
        evidence: of the findings in their order.
        titles: a heading for each of them.
        field: share of the shorter side that the network sees, a square in the middle; drawn as a frame.
    """
    figure = Figure(figsize=(3.4 + 1.6 * len(evidence), 3.9 * len(pictures)))
    FigureCanvasAgg(figure)
    figure.set_layout_engine("constrained", h_pad=0.09, w_pad=0.05)
    grid = figure.add_gridspec(2 * len(pictures), 1 + len(evidence), width_ratios=[2.1, *[1] * len(evidence)])
    for view, full in enumerate(pictures):
        picture = shrunk(full)
        box = seen_box(picture.shape[0], picture.shape[1], field)
        whole = figure.add_subplot(grid[2 * view : 2 * view + 2, 0])
        _show(whole, picture)
        _frame(whole, box)
        for i, (found, title) in enumerate(zip(evidence, titles, strict=True)):
            attention, cam = (figure.add_subplot(grid[2 * view + line, i + 1]) for line in (0, 1))
            for ax in (attention, cam):
                _show(ax, picture)
                ax.set(xlim=box[:2], ylim=box[2:])
            attention.set_title(title, fontsize=8, color=INK)
            _draw_attention(attention, found, view, box)
            _heat(cam, found.grad_cam[view], box)
            _below(cam, "Grad-CAM of [POS]" if found.grad_cam[view].any() else "Grad-CAM of [POS]: zero")
    return figure


def _draw_attention(ax: Axes, evidence: Evidence, view: int, box: Box) -> None:
    if evidence.attention is None:
        _below(ax, "no node in the graph" if evidence.node is None else "no graph in this network")
        return
    weights = evidence.attention[view]
    _heat(ax, weights / evidence.attention.max(), box)
    _below(ax, f"attention to “{evidence.node}”\n{float(weights.min()):.3f} to {float(weights.max()):.3f}")


def _show(ax: Axes, picture: NDArray[np.float32]) -> None:
    ax.imshow(picture, cmap="gray", vmin=0, vmax=1)
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)


def _frame(ax: Axes, box: Box) -> None:
    left, right, bottom, top = box
    ax.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, ec="#56B4E9", ls="--", lw=1))


def _heat(ax: Axes, values: Tensor, box: Box) -> None:
    shade = values.clamp(0, 1).cpu().numpy()
    ax.imshow(shade, cmap=HEAT, vmin=0, vmax=1, alpha=0.5 * shade**0.7, extent=box, interpolation="bilinear")


def _below(ax: Axes, text: str) -> None:
    ax.set_xlabel(text, fontsize=7.5, color=SOFT)


def seen_box(height: int, width: int, field: float) -> Box:
    """Extent in pixels of the centred square whose side is `field` of the shorter side."""
    half = field * min(height, width) / 2
    x, y = width / 2 - 0.5, height / 2 - 0.5  # imshow puts the middle of the first pixel at 0
    return x - half, x + half, y + half, y - half


def shrunk(picture: Tensor) -> NDArray[np.float32]:
    """A picture (3, H, W) as grey array (H, W) with at most DISPLAY pixels on its longer side."""
    grey = picture.detach().cpu().float().mean(dim=0)[None, None]
    scale = DISPLAY / max(grey.shape[2:])
    if scale < 1:
        size = [max(round(side * scale), 1) for side in grey.shape[2:]]
        grey = F.interpolate(grey, size=size, mode="bilinear", antialias=True)
    return grey[0, 0].clamp(0, 1).numpy()
