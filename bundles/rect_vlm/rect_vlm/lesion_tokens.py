"""Lesions as extra tokens of the language model: what the encoder says inside each outlined lesion."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rect_vlm.speaker import Speaker

SEEN = 1e-3  # patches: less than this is no lesion


def lesion_weights(masks: Tensor, patch: tuple[int, int, int]) -> Tensor:
    """Share of every patch that a lesion covers.

    Args:
        masks: (B, K, D, H, W) probabilities or 0/1 on the model grid.
        patch: voxels of a patch.

    Returns:
        (B, K, N) in 0..1, patches D-major, as the encoder's local features.
    """
    return F.avg_pool3d(masks.float(), patch).flatten(2)


def with_lesions(
    vision: Mapping[str, Tensor], masks: Tensor, patch: tuple[int, int, int]
) -> dict[str, Tensor]:
    """The encoder's features with `lesion_weights` of masks (B, K, D, H, W) beside them."""
    return {**vision, "lesion_weights": lesion_weights(masks, patch)}


class LesionTokens(nn.Module):
    """One token per lesion: the mean of the local features under its mask, a learned one where it is absent.

    Args:
        embed_dim: E, width of the encoder.
        llm_dim: L, width of the language model.
        num_lesions: K.
    """

    def __init__(self, embed_dim: int, llm_dim: int, num_lesions: int) -> None:
        super().__init__()
        self.kind = nn.Parameter(torch.randn(num_lesions, embed_dim) * 0.02)
        self.absent = nn.Parameter(torch.randn(num_lesions, embed_dim) * 0.02)
        self.speak = Speaker(embed_dim, llm_dim)

    def forward(self, local: Tensor, weights: Tensor) -> Tensor:
        """Local features (B, N, E) and weights (B, K, N) to tokens (B, K, L)."""
        covered = weights.sum(2, keepdim=True)  # (B, K, 1)
        pooled = torch.einsum("bkn,bne->bke", weights.to(local.dtype), local) / covered.clamp_min(SEEN)
        return self.speak(torch.where(covered > SEEN, pooled + self.kind, self.absent))
