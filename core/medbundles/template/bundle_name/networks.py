"""The network of the bundle."""

from __future__ import annotations

from medbundles.attention import CBAM3D
from monai.networks.blocks import Convolution
from torch import Tensor, nn


class GatedUNet(nn.Module):
    """Encoder-decoder of two levels with channel and spatial gates between them (CBAM, arXiv 1807.06521)."""

    def __init__(self, channels: int = 8, classes: int = 2) -> None:
        super().__init__()
        self.enter = Convolution(spatial_dims=3, in_channels=1, out_channels=channels)
        self.down = Convolution(spatial_dims=3, in_channels=channels, out_channels=2 * channels, strides=2)
        self.gate = CBAM3D(2 * channels)
        self.up = Convolution(
            spatial_dims=3, in_channels=2 * channels, out_channels=channels, strides=2, is_transposed=True
        )
        self.leave = nn.Conv3d(channels, classes, kernel_size=1)

    def forward(self, image: Tensor) -> Tensor:
        """Logits (B, K, D, H, W) of an image (B, 1, D, H, W) with even D, H and W."""
        if any(size % 2 for size in image.shape[2:]):
            raise ValueError(f"image must have even sizes, got {tuple(image.shape[2:])}")
        fine = self.enter(image)  # (B, C, D, H, W)
        coarse = self.gate(self.down(fine))  # (B, 2C, D/2, H/2, W/2)
        logits: Tensor = self.leave(fine + self.up(coarse))  # (B, K, D, H, W)
        return logits
