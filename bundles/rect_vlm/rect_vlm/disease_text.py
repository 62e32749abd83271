"""What the localizer is told to look for: tokens and one vector per lesion."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from rect_vlm.projection import projection_head


class LesionPrompts(NamedTuple):
    """K lesions as text of width d."""

    tokens: Tensor  # (K, T, d)
    mask: Tensor  # (K, T) bool, True for a token
    pooled: Tensor  # (K, d) mean of the tokens

    def pick(self, lesions: Tensor | slice) -> LesionPrompts:
        """The same of some of the lesions."""
        return LesionPrompts(self.tokens[lesions], self.mask[lesions], self.pooled[lesions])


class DiseaseText(nn.Module):
    """Project cached tokens (K, T, Dt) to `dim`; all stay, so that attention has what to choose from."""

    def __init__(self, text_dim: int, dim: int) -> None:
        super().__init__()
        self.project = projection_head(text_dim, dim, dim)

    def forward(self, tokens: Tensor, mask: Tensor) -> LesionPrompts:
        projected = self.project(tokens)
        weight = mask.unsqueeze(2).to(projected.dtype)
        pooled = (projected * weight).sum(1) / weight.sum(1)
        return LesionPrompts(projected, mask, pooled)


class LesionCodes(nn.Module):
    """Without text: one learned vector per lesion, which says which lesion is meant and nothing about it."""

    def __init__(self, num_lesions: int, dim: int) -> None:
        super().__init__()
        self.codes = nn.Parameter(torch.randn(num_lesions, dim))

    def forward(self, tokens: Tensor, mask: Tensor) -> LesionPrompts:
        return LesionPrompts(self.codes.unsqueeze(1), torch.ones_like(mask[:, :1]), self.codes)
