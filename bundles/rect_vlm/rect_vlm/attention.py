"""Attention that knows the slice and the anatomy of a patch, in memory linear in the number of patches."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ALIGNMENT = 8  # fused attention kernels want head widths that are multiples of it
UNASSIGNED = 1e-4  # share of a region where it has no voxel: its logarithm stays finite


class SliceAwareAttention(nn.Module):
    """Self-attention of patches with a learned bias per distance between their slices.

    ``softmax(q k^T / sqrt(d) + weight * b[|z_i - z_j|]) v``, with a row of b per head. The bias of all pairs
    has rank Z, so it is folded into the dot product of vectors that are Z longer: a query adds the one-hot of
    its slice, a key its bias towards every slice. Any fused kernel then computes it, without N x N tensors.

    Args:
        dim: E, a multiple of heads.
        heads: attention heads.
        slices: Z, the number of patch slices.
        weight: factor of the bias.
        bias: False is plain self-attention.
        dropout: of the attention weights in training; on a CPU it makes torch hold all N x N of them.

    Raises:
        ValueError: dim is no multiple of heads.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        slices: int,
        weight: float = 0.5,
        bias: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        _check(dim, heads)
        self.heads, self.slices, self.weight, self.dropout = heads, slices, weight, dropout
        self.width = dim // heads
        self.scale = self.width**-0.5
        self.extra = slices + -(self.width + slices) % ALIGNMENT
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        # Near slices are preferred from the start.
        near_first = -torch.arange(slices) / max(slices - 1, 1)
        self.distance_bias = nn.Parameter(near_first.repeat(heads, 1)) if bias else None

    def forward(self, x: Tensor, slice_index: Tensor) -> Tensor:
        """Attended x (B, N, E); slice_index (N,) holds the patch slice 0 ... Z - 1 of every patch."""
        query, key, value = self._split(x)
        if self.distance_bias is not None:
            query, key, value = self._folded(query, key, value, slice_index)
        dropout = self.dropout if self.training else 0.0
        found = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, scale=self.scale)
        return self.out(_joined(found[..., : self.width]))

    def dense(self, x: Tensor, slice_index: Tensor) -> Tensor:
        """The same from its definition, in memory quadratic in N and without dropout: the reference."""
        query, key, value = self._split(x)
        scores = query @ key.mT * self.scale  # (B, heads, N, N)
        if self.distance_bias is not None:
            distance = (slice_index[:, None] - slice_index).abs()
            scores = scores + self.weight * self.distance_bias[:, distance]
        return self.out(_joined(scores.softmax(dim=-1) @ value))

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value = (_heads(part, self.heads) for part in self.qkv(x).chunk(3, dim=-1))
        return query, key, value

    def _folded(
        self, query: Tensor, key: Tensor, value: Tensor, slice_index: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        assert self.distance_bias is not None
        slices = torch.arange(self.extra, device=slice_index.device)
        onehot = (slice_index[:, None] == slices).to(query.dtype)  # (N, Z + padding)
        distance = (slices[: self.slices, None] - slices[: self.slices]).abs()
        # The kernel scales the whole product; the bias is not to be scaled.
        table = self.distance_bias[:, distance] * (self.weight / self.scale)  # (heads, Z, Z)
        biases = onehot[:, : self.slices] @ F.pad(table, (0, self.extra - self.slices)).to(query.dtype)
        batch = query.shape[0]
        return (
            torch.cat([query, onehot.expand(batch, self.heads, -1, -1)], dim=-1),
            torch.cat([key, biases.expand(batch, -1, -1, -1)], dim=-1),
            F.pad(value, (0, self.extra)),
        )


class RegionAwareAttention(nn.Module):
    """Cross-attention of patches to region tokens, with what a patch consists of as the prior.

    ``softmax(q k^T / sqrt(d) + log(A + 1e-4)) v``: equal scores give back the shares A, and a low score on
    the region a patch lies in does not hand the patch over to regions it has no part of.

    Args:
        dim: E, a multiple of heads.
        heads: attention heads.
        dropout: of the attention weights in training.

    Raises:
        ValueError: dim is no multiple of heads.
    """

    def __init__(self, dim: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        _check(dim, heads)
        self.heads, self.dropout = heads, dropout
        self.query = nn.Linear(dim, dim)
        self.key_value = nn.Linear(dim, 2 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, tokens: Tensor, assignment: Tensor) -> Tensor:
        """Attended x (B, N, E), given region tokens (B, R + 1, E) and shares A (B, N, R + 1)."""
        query = _heads(self.query(x), self.heads)
        key, value = (_heads(part, self.heads) for part in self.key_value(tokens).chunk(2, dim=-1))
        prior = (assignment + UNASSIGNED).log().unsqueeze(1).to(query.dtype)  # (B, 1, N, R + 1)
        dropout = self.dropout if self.training else 0.0
        return self.out(
            _joined(F.scaled_dot_product_attention(query, key, value, attn_mask=prior, dropout_p=dropout))
        )


def _check(dim: int, heads: int) -> None:
    if dim % heads:
        raise ValueError(f"dim must be a multiple of heads, got {dim=} {heads=}")


def _heads(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(2, (heads, -1)).transpose(1, 2)  # (B, heads, N, E / heads)


def _joined(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(2)  # (B, N, E)
