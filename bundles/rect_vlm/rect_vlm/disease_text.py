"""What the localizer is told to look for: tokens and one vector per lesion."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from rect_vlm.projection import projection_head, standardised


class LesionPrompts(NamedTuple):
    """K lesions as text of width d."""

    tokens: Tensor  # (K, T, d)
    mask: Tensor  # (K, T) bool, True for a token
    pooled: Tensor  # (K, d) what a text says as a whole

    def pick(self, lesions: Tensor | slice) -> LesionPrompts:
        """The same of some of the lesions."""
        return LesionPrompts(self.tokens[lesions], self.mask[lesions], self.pooled[lesions])


class DiseaseText(nn.Module):
    """Project cached tokens (K, T, Dt) to `dim`; all stay, so that attention has what to choose from.

    The vector of a text is its mean token, standardised over the lesions: means of many tokens are nearly
    the same vector whatever is described. `several` is False for a localizer of one lesion.
    """

    def __init__(self, text_dim: int, dim: int, several: bool = True) -> None:
        super().__init__()
        self.several = several
        self.project = projection_head(text_dim, dim, dim)

    def forward(self, tokens: Tensor, mask: Tensor) -> LesionPrompts:
        weight = mask.unsqueeze(2).to(tokens.dtype)
        means = (tokens * weight).sum(1) / weight.sum(1)  # (K, Dt)
        if self.several:
            means = standardised(means)
        return LesionPrompts(self.project(tokens), mask, self.project(means))


class LesionCodes(nn.Module):
    """Without text: one learned vector per lesion, which says which lesion is meant and nothing about it."""

    def __init__(self, num_lesions: int, dim: int) -> None:
        super().__init__()
        self.codes = nn.Parameter(torch.randn(num_lesions, dim))

    def forward(self, tokens: Tensor, mask: Tensor) -> LesionPrompts:
        return LesionPrompts(self.codes.unsqueeze(1), torch.ones_like(mask[:, :1]), self.codes)
