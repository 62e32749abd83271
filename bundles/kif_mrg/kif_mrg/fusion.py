"""Visual-semantic enhancement: every image patch looks up the knowledge graph."""

import torch
from torch import Tensor, nn


class KnowledgeLayer(nn.Module):
    """Pre-norm cross-attention of patches to tags, then a feed-forward step; no self-attention."""

    def __init__(self, dim: int, heads: int, ff: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(dim)
        self.attention = nn.MultiheadAttention(dim, heads, dropout, batch_first=True)
        self.ff_norm = nn.LayerNorm(dim)
        self.ff = nn.Sequential(nn.Linear(dim, ff), nn.ReLU(), nn.Dropout(dropout), nn.Linear(ff, dim))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, tags: Tensor, weights: bool = False) -> tuple[Tensor, Tensor | None]:
        """Enhanced x (B, N, D) and, if asked for, the mean attention of the heads (B, N, 28)."""
        found, attention = self.attention(self.attention_norm(x), tags, tags, need_weights=weights)
        x = x + self.dropout(found)
        return x + self.dropout(self.ff(self.ff_norm(x))), attention


class KnowledgeFusion(nn.Module):
    """Enrich patches (B, N, Dv) with the tags of the knowledge graph; the decoder sees the result.

    Args:
        visual_width: Dv.
        dim: D, the width of the tags; a multiple of `heads`.
        heads, ff, layers, dropout: of the layers; `ff` is also the hidden width on the way back to Dv.

    Raises:
        ValueError: `dim` is not a multiple of `heads`.
    """

    def __init__(
        self,
        visual_width: int,
        dim: int = 96,
        heads: int = 8,
        ff: int = 128,
        layers: int = 2,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"dim must be a multiple of heads, got {dim=} {heads=}")
        self.project = nn.Linear(visual_width, dim)
        self.layers = nn.ModuleList(KnowledgeLayer(dim, heads, ff, dropout) for _ in range(layers))
        self.back = nn.Sequential(
            nn.LayerNorm(dim), nn.Linear(dim, ff), nn.ReLU(), nn.Linear(ff, visual_width)
        )
        # Features of unit variance from the start. Torch's own start leaves a few per cent of what tells
        # images apart.
        nn.init.kaiming_normal_(self.back.get_parameter("1.weight"), nonlinearity="relu")
        nn.init.kaiming_normal_(self.back.get_parameter("3.weight"), nonlinearity="linear")
        nn.init.zeros_(self.back.get_parameter("1.bias"))
        nn.init.zeros_(self.back.get_parameter("3.bias"))

    def forward(self, patches: Tensor, tags: Tensor) -> Tensor:
        """Enriched patches (B, N, Dv) from `patches` (B, N, Dv) and one set of `tags` (1, 28, D) for all."""
        x = self.project(patches)
        tags = tags.expand(len(x), -1, -1)
        for layer in self.layers:
            x, _ = layer(x, tags)
        return self.back(x)

    def attention(self, patches: Tensor, tags: Tensor) -> Tensor:
        """What every patch looked up, (B, layers, N, 28): per layer the mean over heads, rows sum to 1."""
        x = self.project(patches)
        tags = tags.expand(len(x), -1, -1)
        maps = []
        for layer in self.layers:
            x, weights = layer(x, tags, weights=True)
            maps.append(weights)
        return torch.stack(maps, dim=1)
