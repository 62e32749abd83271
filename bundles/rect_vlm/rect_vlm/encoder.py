"""The vision encoder: a transformer on 3-D patches that knows slices and anatomy."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from medbundles.region_graph import region_nodes
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from rect_vlm.attention import RegionAwareAttention, SliceAwareAttention
from rect_vlm.block import Block, RegionTokens
from rect_vlm.patches import AxisPositions, PatchEmbedding
from rect_vlm.regions import REGIONS, patch_to_region, region_geometry


class ThreeDVisionEncoder(nn.Module):
    """CT volume to one global vector, one vector per patch and one per anatomical region.

    Args:
        img_size: voxels along D, H, W; towards superior, posterior, left.
        patch_size: voxels of a patch, a divisor of img_size.
        in_channels: channels of the image.
        embed_dim: E, a multiple of num_heads.
        depth: blocks.
        num_heads: attention heads.
        mlp_ratio: hidden width of the feed-forward step over E.
        num_regions: R.
        dropout: after every attention and feed-forward step.
        attn_dropout: of attention weights.
        slice_distance_weight: factor of the bias by distance between slices.
        slice_bias: False leaves that bias out.
        region_attention: False leaves anatomy out of the patches: no region-aware attention and no region
            embedding; region features are then only means of patches.
        region_drop: probability in training that a sample's regions are hidden, so that the encoder also
            learns to do without.
        checkpointing: compute every block again in the backward pass of training instead of keeping its
            activations.

    Raises:
        ValueError: sizes that do not divide as said.
    """

    def __init__(
        self,
        img_size: Sequence[int],
        patch_size: Sequence[int],
        in_channels: int = 1,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        num_regions: int = len(REGIONS),
        dropout: float = 0.0,
        attn_dropout: float = 0.0,
        slice_distance_weight: float = 0.5,
        slice_bias: bool = True,
        region_attention: bool = True,
        region_drop: float = 0.1,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.img_size, self.patch_size = tuple(img_size), tuple(patch_size)
        self.in_channels, self.embed_dim, self.num_regions = in_channels, embed_dim, num_regions
        self.region_drop, self.checkpointing = region_drop, checkpointing
        self.grid = self._patches_along(self.img_size)
        self.patches = PatchEmbedding(in_channels, self.patch_size, embed_dim)
        self.positions = AxisPositions(self.grid, embed_dim)
        self.region_tokens = RegionTokens(num_regions, embed_dim)
        self.region_embedding = nn.Embedding(num_regions + 1, embed_dim) if region_attention else None
        self.blocks = nn.ModuleList(
            Block(
                SliceAwareAttention(
                    embed_dim, num_heads, self.grid[0], slice_distance_weight, slice_bias, attn_dropout
                ),
                RegionAwareAttention(embed_dim, num_heads, attn_dropout) if region_attention else None,
                embed_dim,
                int(mlp_ratio * embed_dim),
                dropout,
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(embed_dim)
        self.global_head, self.local_head, self.region_head = (_head(embed_dim) for _ in range(3))
        self.apply(_initialise)

    def forward(self, image: Tensor, regions: Tensor | None = None) -> dict[str, Tensor]:
        """Features of image (B, C, D, H, W) and region ids 0 ... R (B, 1, D, H, W) or None.

        A volume of another size than img_size must have sides that are multiples of the patch.

        Returns:
            global_features (B, E); local_features (B, N, E); region_features (B, R, E), those of an absent
            region say only that; region_present (B, R) bool; patch_to_region (B, N, R + 1), the shares used.

        Raises:
            ValueError: image of another shape; regions of another shape or outside 0 ... R.
        """
        grid = self._grid_of(image)
        assignment = patch_to_region(
            regions, self.patch_size, self.num_regions, image.shape[0], grid, image.device
        )
        assignment = self._some_hidden(assignment)
        tokens = self.region_tokens(region_geometry(assignment, grid))
        x = self.patches(image) + self.positions(grid)
        if self.region_embedding is not None:
            x = x + assignment @ self.region_embedding.weight
        slice_index = self._slice_index(grid, image.device)
        for block in self.blocks:
            if self.checkpointing and self.training:
                x = checkpoint(block, x, slice_index, tokens, assignment, use_reentrant=False)
            else:
                x = block(x, slice_index, tokens, assignment)
        x = self.norm(x)
        means, present = region_nodes(x.mT, assignment[..., 1:].mT)
        return {
            "global_features": self.global_head(x.mean(dim=1)),
            "local_features": self.local_head(x),
            "region_features": self.region_head(means + tokens[:, 1:]),
            "region_present": present,
            "patch_to_region": assignment,
        }

    def _some_hidden(self, assignment: Tensor) -> Tensor:
        if not self.training or self.region_drop == 0:
            return assignment
        hidden = torch.rand(assignment.shape[0], 1, 1, device=assignment.device) < self.region_drop
        background = torch.zeros_like(assignment)
        background[..., 0] = 1
        return torch.where(hidden, background, assignment)

    def _slice_index(self, grid: Sequence[int], device: torch.device) -> Tensor:
        """Slice (N,) of every patch, on the scale of the encoder's own grid as the positions are."""
        depth = torch.arange(grid[0], device=device) * self.grid[0] // grid[0]
        return depth.repeat_interleave(grid[1] * grid[2])

    def _grid_of(self, image: Tensor) -> tuple[int, ...]:
        if torch.jit.is_tracing():  # a trace is of one size, and may not look at it
            return self.grid
        if image.ndim != 5 or image.shape[1] != self.in_channels:
            raise ValueError(f"image must be (B, {self.in_channels}, D, H, W), got {tuple(image.shape)}")
        return self._patches_along(image.shape[2:])

    def _patches_along(self, size: Sequence[int]) -> tuple[int, ...]:
        if any(s % p or s < p for s, p in zip(size, self.patch_size, strict=True)):
            raise ValueError(
                f"volume must have sides that are multiples of the patch {self.patch_size}, got {tuple(size)}"
            )
        return tuple(s // p for s, p in zip(size, self.patch_size, strict=True))


def _head(dim: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, dim))


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
