"""Convolutional block attention for volumes (CBAM: Woo et al., ECCV 2018, arXiv 1807.06521)."""

import torch
from torch import Tensor, nn


class CBAM3D(nn.Module):
    """Weigh a feature map by a channel gate, then by a spatial gate.

    Args:
        channels: C, the width of the map.
        reduction: the channel gate's hidden width is ``max(channels // reduction, 1)``.
        kernel_size: odd edge length of the spatial gate's convolution.

    Raises:
        ValueError: for an even kernel size, which cannot keep the grid.
    """

    def __init__(self, channels: int, reduction: int = 8, kernel_size: int = 7) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd to keep the grid, got kernel_size={kernel_size}")
        hidden = max(channels // reduction, 1)
        self.channel = nn.Sequential(
            nn.Conv3d(channels, hidden, 1, bias=False),
            nn.ReLU(),
            nn.Conv3d(hidden, channels, 1, bias=False),
        )
        self.spatial = nn.Conv3d(2, 1, kernel_size, padding=kernel_size // 2, bias=False)

    def gates(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Gates in (0, 1) of a map (B, C, D, H, W): channel (B, C, 1, 1, 1), spatial (B, 1, D, H, W)."""
        average = x.mean(dim=(2, 3, 4), keepdim=True)  # (B, C, 1, 1, 1)
        peak = x.amax(dim=(2, 3, 4), keepdim=True)
        channel = torch.sigmoid(self.channel(average) + self.channel(peak))
        gated = channel * x
        summary = torch.cat([gated.mean(dim=1, keepdim=True), gated.amax(dim=1, keepdim=True)], dim=1)
        return channel, torch.sigmoid(self.spatial(summary))

    def forward(self, x: Tensor) -> Tensor:
        """Gate a map (B, C, D, H, W); the shape stays, the size of the grid is free."""
        channel, spatial = self.gates(x)
        return spatial * (channel * x)
