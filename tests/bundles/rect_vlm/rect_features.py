"""Random features in the form of the vision encoder, random texts, and an encoder of one convolution."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

REGIONS = 4


def features(batch: int, embed_dim: int, grid: tuple[int, int, int]) -> dict[str, Tensor]:
    tokens = math.prod(grid)
    return {
        "global_features": torch.randn(batch, embed_dim),
        "local_features": torch.randn(batch, tokens, embed_dim),
        "region_features": torch.randn(batch, REGIONS, embed_dim),
        "region_present": torch.rand(batch, REGIONS) < 0.5,
    }


def text(tokens: int = 7, width: int = 12) -> tuple[Tensor, Tensor]:
    """Five descriptions of different length: tokens (5, T, Dt) and their mask (5, T)."""
    mask = torch.arange(tokens) < torch.arange(3, 8).clamp_max(tokens)[:, None]
    return torch.randn(5, tokens, width) * mask.unsqueeze(2), mask


class PatchEncoder(nn.Module):
    """Patches through one convolution; regions are read and not used."""

    def __init__(self, embed_dim: int, grid: tuple[int, int, int], img_size: tuple[int, int, int]) -> None:
        super().__init__()
        self.embed_dim, self.grid, self.img_size = embed_dim, grid, img_size
        patch = [size // cells for size, cells in zip(img_size, grid, strict=True)]
        self.patches = nn.Conv3d(1, embed_dim, patch, patch)

    def forward(self, image: Tensor, regions: Tensor | None = None) -> dict[str, Tensor]:
        return {"local_features": self.patches(image).flatten(2).transpose(1, 2)}
