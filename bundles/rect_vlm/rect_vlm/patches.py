"""Patches of a volume as tokens: order, embedding, positions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def into_patches(volume: Tensor, patch: Sequence[int]) -> Tensor:
    """Voxels (B, N, C * voxels) of every patch of a volume (B, C, D, H, W); W is the innermost axis of N."""
    split = volume
    for axis, size in zip((2, 4, 6), patch, strict=True):
        split = split.unflatten(axis, (-1, size))  # (B, C, G_d, p_d, G_h, p_h, G_w, p_w) in the end
    return split.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4).flatten(1, 3)


class PatchEmbedding(nn.Module):
    """One linear layer on every patch (Vision Transformer, arXiv 2010.11929).

    It is the convolution whose stride is its kernel; as a matrix product it is several times faster on a CPU.

    Args:
        in_channels: C.
        patch: voxels of a patch along D, H, W.
        embed_dim: E.
    """

    def __init__(self, in_channels: int, patch: Sequence[int], embed_dim: int) -> None:
        super().__init__()
        self.patch = tuple(patch)
        self.projection = nn.Linear(in_channels * patch[0] * patch[1] * patch[2], embed_dim)

    def forward(self, image: Tensor) -> Tensor:
        """Tokens (B, N, E) of image (B, C, D, H, W), whose sides are multiples of the patch."""
        return self.projection(into_patches(image, self.patch))


class AxisPositions(nn.Module):
    """Learned positions, the sum of one vector per axis: G_d + G_h + G_w vectors instead of their product.

    Args:
        grid: patches along D, H, W.
        embed_dim: E.
    """

    def __init__(self, grid: Sequence[int], embed_dim: int) -> None:
        super().__init__()
        self.grid = tuple(grid)
        self.axes = nn.ParameterList(0.02 * torch.randn(size, embed_dim) for size in grid)

    def forward(self, grid: Sequence[int]) -> Tensor:
        """Positions (N, E) of a grid; each axis is interpolated linearly where its length is another."""
        d, h, w = (
            axis if size == own else _stretched(axis, size)
            for axis, own, size in zip(self.axes, self.grid, grid, strict=True)
        )
        return (d[:, None, None] + h[:, None] + w).flatten(0, 2)


def _stretched(axis: Tensor, size: int) -> Tensor:
    return F.interpolate(axis.T[None], size=size, mode="linear", align_corners=False)[0].T
