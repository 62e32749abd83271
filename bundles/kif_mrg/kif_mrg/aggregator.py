"""Reading a set with one query: the transformer of DETR (arXiv 2005.12872) over the retrieved reports."""

from torch import Tensor, nn


class QueryLayer(nn.Module):
    """Decoder layer of one query, norm after each step; `position` joins queries and keys, never values.

    Args:
        dim: width.
        heads: attention heads.
        ff: feed-forward width.
        dropout: after each step and inside attention and feed-forward.
    """

    def __init__(self, dim: int, heads: int, ff: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.self_attention = nn.MultiheadAttention(dim, heads, dropout, batch_first=True)
        self.cross_attention = nn.MultiheadAttention(dim, heads, dropout, batch_first=True)
        self.feed_forward = nn.Sequential(
            nn.Linear(dim, ff), nn.ReLU(), nn.Dropout(dropout), nn.Linear(ff, dim)
        )
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(dim), nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, position: Tensor, source: Tensor) -> Tensor:
        """One step of x (B, 1, Dm) with its `position` (B, 1, Dm) and the `source` (B, N, Dm) it reads."""
        query = x + position
        told = self.self_attention(query, query, x, need_weights=False)[0]
        x = self.norm1(x + self.dropout(told))
        told = self.cross_attention(x + position, source, source, need_weights=False)[0]
        x = self.norm2(x + self.dropout(told))
        return self.norm3(x + self.dropout(self.feed_forward(x)))


class QueryTransformer(nn.Module):
    """Encode a set without positions, then read it with one query: `layers` of each, one norm at the end.

    Raises:
        ValueError: `dim` that `heads` does not divide.
    """

    def __init__(self, dim: int, heads: int, ff: int, layers: int = 2, dropout: float = 0.1) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"dim must be a multiple of heads, got {dim=} {heads=}")
        layer = nn.TransformerEncoderLayer(dim, heads, ff, dropout, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.decoder = nn.ModuleList(QueryLayer(dim, heads, ff, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, source: Tensor, target: Tensor, position: Tensor) -> Tensor:
        """(B, Dm) from a set `source` (B, N, Dm), a start `target` (B, Dm) and its `position` (B, Dm)."""
        source = self.encoder(source)
        x, position = target.unsqueeze(1), position.unsqueeze(1)
        for layer in self.decoder:
            x = layer(x, position, source)
        return self.norm(x).squeeze(1)


class DynamicAggregator(nn.Module):
    """Sum up the features of the retrieved reports as the image asks for it.

    The target starts at zero. One query attending to itself returns its values, here zeros, so the first
    self-attention is a constant, and the bias of the norm behind it can be any constant: all other weights
    of that step would never get a useful gradient and are frozen.
    """

    def __init__(self, dim: int, heads: int, ff: int, layers: int = 2, dropout: float = 0.1) -> None:
        super().__init__()
        self.transformer = QueryTransformer(dim, heads, ff, layers, dropout)
        first = self.transformer.decoder[0]
        first.get_submodule("self_attention").requires_grad_(False)
        first.get_parameter("norm1.weight").requires_grad_(False)

    def forward(self, memory: Tensor, query: Tensor) -> Tensor:
        """z (B, Dm) from `memory` (B, K, Dm), whose order does not matter, and `query` (B, Dm)."""
        return self.transformer(memory, query.new_zeros(query.shape), query)
