"""The deployed network: a CT in, one mask channel per lesion out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from rect_vlm.localizer import LesionLocalizer

if TYPE_CHECKING:
    from rect_vlm.encoder import ThreeDVisionEncoder


class LocalizationNet(nn.Module):
    """Vision encoder and localizer in one; traces and exports with the image alone.

    Args:
        vision: the encoder: image (B, 1, D, H, W), region ids or None -> features.
        localizer: of the same grid and width.

    Raises:
        ValueError: width, grid or image size of the two differ.
    """

    def __init__(self, vision: ThreeDVisionEncoder, localizer: LesionLocalizer) -> None:
        super().__init__()
        sizes = [(part.embed_dim, tuple(part.grid), tuple(part.img_size)) for part in (vision, localizer)]
        if sizes[0] != sizes[1]:
            raise ValueError(
                f"encoder and localizer must share (embed_dim, grid, img_size), got {sizes[0]} and {sizes[1]}"
            )
        self.vision, self.localizer = vision, localizer

    def forward(self, image: Tensor, regions: Tensor | None = None) -> Tensor:
        """Logits (B, K, D, H, W) of all lesions; image (B, 1, D, H, W), region ids of that shape or None."""
        return self.localizer(self.vision(image, regions), image)["logits"]
