"""The parts an encoder is stacked from: tokens of the regions, and the block that reads them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rect_vlm.attention import RegionAwareAttention, SliceAwareAttention
from rect_vlm.regions import GEOMETRY


class RegionTokens(nn.Module):
    """Token of a region: what it is plus where it lies in this patient; token 0 is the background."""

    def __init__(self, num_regions: int, embed_dim: int) -> None:
        super().__init__()
        self.prototypes = nn.Embedding(num_regions + 1, embed_dim)
        self.place = nn.Sequential(nn.Linear(GEOMETRY, embed_dim), nn.GELU(), nn.Linear(embed_dim, embed_dim))

    def forward(self, geometry: Tensor) -> Tensor:
        """Tokens (B, R + 1, E) from the geometry (B, R, 8) of the regions."""
        regions = self.prototypes.weight[1:] + self.place(geometry)
        background = self.prototypes.weight[:1].expand(geometry.shape[0], -1, -1)
        return torch.cat([background.to(regions.dtype), regions], dim=1)


class Block(nn.Module):
    """Pre-norm block: slice-aware attention, region-aware attention if given, feed-forward step."""

    def __init__(
        self,
        slice_attention: SliceAwareAttention,
        region_attention: RegionAwareAttention | None,
        dim: int,
        hidden: int,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.slice_norm = nn.LayerNorm(dim)
        self.slice_attention = slice_attention
        self.region_norm = None if region_attention is None else nn.LayerNorm(dim)
        self.region_attention = region_attention
        self.mlp_norm = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(
            nn.Linear(dim, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, dim)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, slice_index: Tensor, tokens: Tensor, assignment: Tensor) -> Tensor:
        """x (B, N, E), slice of every patch (N,), region tokens (B, R + 1, E), shares A (B, N, R + 1)."""
        x = x + self.dropout(self.slice_attention(self.slice_norm(x), slice_index))
        if self.region_norm is not None and self.region_attention is not None:
            x = x + self.dropout(self.region_attention(self.region_norm(x), tokens, assignment))
        return x + self.dropout(self.mlp(self.mlp_norm(x)))
