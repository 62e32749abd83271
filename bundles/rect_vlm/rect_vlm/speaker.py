"""The last step into the language model: vectors of the encoder become tokens of its width and size."""

from __future__ import annotations

from torch import Tensor, nn


class Speaker(nn.Module):
    """Two layers from the encoder's width to that of the language model, ending in a LayerNorm.

    Args:
        embed_dim: E, width of the encoder.
        llm_dim: L, width of the language model.
    """

    def __init__(self, embed_dim: int, llm_dim: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(embed_dim, llm_dim), nn.GELU(), nn.Linear(llm_dim, llm_dim))
        self.norm = nn.LayerNorm(llm_dim)

    def start_scale(self, std: float) -> None:
        """Let tokens have the standard deviation `std`: words of a large model are far below 1."""
        nn.init.constant_(self.norm.weight, std)

    def forward(self, vectors: Tensor) -> Tensor:
        """(..., E) to (..., L)."""
        return self.norm(self.layers(vectors))
