"""A U-Net on the patch grid whose skips and bottleneck are steered by text, one network for every lesion."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GROUP = 8  # channels that are normalised together: one channel alone would forget whether it found anything


NORMS = ("group", "batch")


def conv_norm(
    inputs: int, outputs: int, kernel: int = 3, stride: int = 1, norm: str = "group"
) -> nn.Sequential:
    """Convolution, normalisation and ReLU, (B, inputs, D, H, W) -> (B, outputs, D, H, W)."""
    return nn.Sequential(
        nn.Conv3d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm3d(outputs) if norm == "batch" else nn.GroupNorm(outputs // GROUP, outputs),
        nn.ReLU(inplace=True),
    )


def conv_block(inputs: int, outputs: int, kernel: int = 3, norm: str = "group") -> nn.Sequential:
    """Two convolutions with normalisation and ReLU, (B, inputs, D, H, W) -> (B, outputs, D, H, W)."""
    return nn.Sequential(
        conv_norm(inputs, outputs, kernel, norm=norm), conv_norm(outputs, outputs, kernel, norm=norm)
    )


def resized(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Maps (B, C, D, H, W) on another grid of the same field, linear in between."""
    return F.interpolate(maps, size=tuple(size), mode="trilinear", align_corners=False)


class TextGate(nn.Module):
    """Attention gate of Attention U-Net (arXiv 1804.03999) to which the text is a third input."""

    def __init__(self, decoder_channels: int, skip_channels: int, text_dim: int) -> None:
        super().__init__()
        inner = max(skip_channels // 2, 4)
        self.decoder = nn.Conv3d(decoder_channels, inner, 1)
        self.skip = nn.Conv3d(skip_channels, inner, 1, bias=False)
        self.text = nn.Linear(text_dim, inner, bias=False)
        self.psi = nn.Conv3d(inner, 1, 1)

    def forward(self, decoded: Tensor, skip: Tensor, text: Tensor) -> Tensor:
        """Weights in (0, 1) for the voxels of a skip, (B, 1, D, H, W)."""
        told = self.text(text)[:, :, None, None, None]
        return self.psi((self.decoder(decoded) + self.skip(skip) + told).relu()).sigmoid()


class UpStage(nn.Module):
    """Resize to a skip of any size, gate the skip, join both."""

    def __init__(
        self, inputs: int, skip_channels: int, text_dim: int, kernel: int = 3, norm: str = "group"
    ) -> None:
        super().__init__()
        self.gate = TextGate(inputs, skip_channels, text_dim)
        self.block = conv_block(inputs + skip_channels, skip_channels, kernel, norm)

    def forward(self, x: Tensor, skip: Tensor, text: Tensor) -> Tensor:
        x = resized(x, skip.shape[2:])
        return self.block(torch.cat([x, skip * self.gate(x, skip, text)], dim=1))


class TextGuidedUNet(nn.Module):
    """Attention U-Net on patch features (B, d, *grid) of any grid, steered by a text vector (B, d).

    At the bottleneck the text scales and shifts the channels (FiLM, arXiv 1709.07871); every skip has a gate
    that knows it.

    Args:
        dim: d.
        base_channels: channels on the grid, doubled at every level below; a multiple of 8.
        levels: halvings of the grid, odd sizes rounded up.
        skip_channels: channels of finer skips beyond the grid, from coarse to fine; multiples of 8.
        fine_kernel: of the convolutions there; 1 leaves neighbourhoods to the grid and to the skips, which
            are computed once for all lesions.
        norm: "group", or "batch" (arXiv 1502.03167), which learns faster and wants a dozen rows (scans times
            lesions) per step.

    Raises:
        ValueError: channels that are no multiples of 8, no level, an even kernel or an unknown norm.
    """

    def __init__(
        self,
        dim: int,
        base_channels: int = 64,
        levels: int = 3,
        skip_channels: Sequence[int] = (),
        fine_kernel: int = 3,
        norm: str = "group",
    ) -> None:
        super().__init__()
        if norm not in NORMS:
            raise ValueError(f"norm must be one of {NORMS}, got {norm!r}")
        uneven = any(channels % GROUP for channels in (base_channels, *skip_channels))
        if uneven or levels < 1 or fine_kernel % 2 == 0:
            raise ValueError(
                f"channels must be multiples of {GROUP}, levels at least 1 and the kernel odd, "
                f"got {base_channels=} skip_channels={tuple(skip_channels)} {levels=} {fine_kernel=}"
            )
        widths = [base_channels * 2**level for level in range(levels + 1)]
        self.down = nn.ModuleList(
            conv_block(inputs, outputs, norm=norm) for inputs, outputs in pairwise([dim, *widths[:-1]])
        )
        self.bottleneck = conv_block(widths[-2], widths[-1], norm=norm)
        self.film = nn.Linear(dim, 2 * widths[-1])
        upwards = [*reversed(widths), *skip_channels]
        kernels = [3] * levels + [fine_kernel] * len(skip_channels)
        stages = [
            UpStage(below, skip, dim, kernel, norm)
            for (below, skip), kernel in zip(pairwise(upwards), kernels, strict=True)
        ]
        self.up = nn.ModuleList(stages[:levels])
        self.finer = nn.ModuleList(stages[levels:])
        self.out_channels = upwards[-1]

    def forward(self, x: Tensor, text: Tensor, skips: Sequence[Tensor] = ()) -> tuple[Tensor, Tensor]:
        """Features on the grid (B, base, *grid) and at the finest skip (B, out_channels, D, H, W).

        Args:
            x: patch features (B, d, *grid).
            text: (B, d).
            skips: finer features from coarse to fine, as many as `skip_channels`.
        """
        passed = []
        for block in self.down:
            x = block(x)
            passed.append(x)
            x = F.max_pool3d(x, 2, ceil_mode=True)
        x = self.bottleneck(x)
        scale, shift = self.film(text)[:, :, None, None, None].chunk(2, dim=1)
        x = x * (1 + scale) + shift
        for stage, skip in zip(self.up, reversed(passed), strict=True):
            x = stage(x, skip, text)
        coarse = x
        for stage, skip in zip(self.finer, skips, strict=True):
            x = stage(x, skip, text)
        return coarse, x
