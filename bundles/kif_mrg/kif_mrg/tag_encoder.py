"""Nodes of the knowledge graph as vectors: a Transformer whose self-attention follows the edges."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kif_mrg.graph import GROUPS, adjacency


class TagEncoder(nn.Module):
    """Encode the N = 28 nodes from the word pieces of their names.

    A node starts as the mean embedding of its own pieces, however many, plus a sinusoidal code of its group;
    masked self-attention then exchanges what the graph's edges allow.

    Args:
        node_ids: the piece ids of every node in the order of `NODES` (ReportTokenizer.node_ids).
        vocab_size: length of the tokenizer's vocabulary.
        dim: D, even and a multiple of `heads`.
        heads, ff, layers, dropout: of the Transformer, pre-norm with ReLU.

    Raises:
        ValueError: a number of nodes other than 28, a node without pieces, an id outside the vocabulary, an
            odd `dim` or one that the heads do not divide.
    """

    offsets: Tensor
    pieces: Tensor
    group_code: Tensor
    blocked: Tensor

    def __init__(
        self,
        node_ids: Sequence[Sequence[int]],
        vocab_size: int,
        dim: int = 96,
        heads: int = 6,
        ff: int = 128,
        layers: int = 2,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if len(node_ids) != len(GROUPS) or not all(node_ids):
            raise ValueError(f"{len(GROUPS)} nodes with one piece or more are required, got {list(node_ids)}")
        pieces = [piece for ids in node_ids for piece in ids]
        if not 0 <= min(pieces) <= max(pieces) < vocab_size:
            raise ValueError(f"piece ids must lie below {vocab_size=}, got {min(pieces)} to {max(pieces)}")
        if dim % heads or dim % 2:
            raise ValueError(f"dim must be even and a multiple of heads, got {dim=} {heads=}")
        lengths = torch.tensor([len(ids) for ids in node_ids])
        # Derived from tokenizer and graph, hence not part of a checkpoint.
        self.register_buffer("pieces", torch.tensor(pieces), persistent=False)
        self.register_buffer("offsets", lengths.cumsum(0) - lengths, persistent=False)
        self.register_buffer("group_code", sinusoids(max(GROUPS) + 1, dim)[list(GROUPS)], persistent=False)
        self.register_buffer("blocked", ~adjacency(), persistent=False)  # torch: True blocks
        self.embedding = nn.EmbeddingBag(vocab_size, dim, mode="mean")
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.norm = nn.LayerNorm(dim, eps=1e-12)
        self.dropout = nn.Dropout(dropout)
        layer = nn.TransformerEncoderLayer(dim, heads, ff, dropout, "relu", batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, nn.LayerNorm(dim), enable_nested_tensor=False)

    def start_from(self, words: Tensor) -> None:
        """Copy word embeddings (V, D), such as the decoder's, into the nodes' own table.

        Raises:
            ValueError: another shape than that of the table.
        """
        if words.shape != self.embedding.weight.shape:
            shape = tuple(self.embedding.weight.shape)
            raise ValueError(f"word embeddings must be {shape} as the nodes' table, got {tuple(words.shape)}")
        self.embedding.weight.data.copy_(words)

    def nodes(self) -> Tensor:
        """Mean piece embedding of every node, (N, D), before any attention."""
        return self.embedding(self.pieces, self.offsets)

    def forward(self) -> Tensor:
        """Tags (1, N, D); the caller expands them to its batch."""
        x = self.dropout(self.norm(self.nodes() + self.group_code)).unsqueeze(0)
        return self.dropout(self.encoder(x, mask=self.blocked))


def sinusoids(positions: int, dim: int) -> Tensor:
    """Sinusoidal position codes (positions, dim), sine and cosine interleaved (arXiv 1706.03762)."""
    rate = torch.exp(torch.arange(0, dim, 2) * (-math.log(10000.0) / dim))
    angle = torch.arange(positions)[:, None] * rate
    return torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1)
