"""Patch features compressed, corrupted in training, and restored while they read what a lesion is."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    """Multi-head attention of x (B, N, d) to context (B, T, d), of which mask (B, T) says what may be read.

    torch's MultiheadAttention keeps all N x N scores when it runs on a CPU without gradients.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
        query, key, value = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2)  # (B, heads, N or T, d / heads)
            for part in (self.query(x), self.key(context), self.value(context))
        )
        readable = None if mask is None else mask[:, None, None, :]
        found = F.scaled_dot_product_attention(query, key, value, attn_mask=readable)
        return self.out(found.transpose(1, 2).flatten(2))


class TextBlock(nn.Module):
    """Pre-norm self-attention of the patches, cross-attention to the text, feed-forward step."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.self_norm = nn.LayerNorm(dim)
        self.self_attention = Attention(dim, heads)
        self.cross_norm = nn.LayerNorm(dim)
        self.cross_attention = Attention(dim, heads)
        self.ff = nn.Sequential(
            nn.LayerNorm(dim), nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim)
        )

    def forward(self, x: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        own = self.self_norm(x)
        x = x + self.self_attention(own, own)
        x = x + self.cross_attention(self.cross_norm(x), text, mask)
        return x + self.ff(x)


class DenoisingTransformer(nn.Module):
    """Compress patch features (B, N, E) to `dim` and refine them with the text of a lesion.

    In training the compressed features are corrupted and the transformer must restore them, in one pass; at
    inference nothing is corrupted.

    Args:
        embed_dim: E.
        dim: d, a multiple of heads.
        heads: attention heads.
        layers: blocks.
        noise: Gaussian noise in standard deviations of the features of a sample.
        mask_ratio: share of the tokens that a learned token replaces.

    Raises:
        ValueError: dim is no multiple of heads, noise is negative, or mask_ratio is not in [0, 1).
    """

    def __init__(
        self,
        embed_dim: int,
        dim: int = 512,
        heads: int = 8,
        layers: int = 4,
        noise: float = 0.1,
        mask_ratio: float = 0.15,
    ) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"dim must be a multiple of heads, got {dim=} {heads=}")
        if noise < 0 or not 0 <= mask_ratio < 1:
            raise ValueError(f"noise must be >= 0 and mask_ratio in [0, 1), got {noise=} {mask_ratio=}")
        self.noise, self.mask_ratio = noise, mask_ratio
        self.compress = nn.Sequential(nn.LayerNorm(embed_dim), nn.Linear(embed_dim, dim))
        self.mask_token = nn.Parameter(0.02 * torch.randn(dim))
        self.blocks = nn.ModuleList(TextBlock(dim, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)
        self.restore = nn.Linear(dim, dim)

    def corrupt(self, clean: Tensor) -> Tensor:
        """Noisy features (B, N, d) with some tokens replaced."""
        spread = clean.detach().std(dim=(1, 2), keepdim=True)
        noisy = clean + self.noise * spread * torch.randn_like(clean)
        replaced = torch.rand(*clean.shape[:2], 1, device=clean.device) < self.mask_ratio
        return torch.where(replaced, self.mask_token.to(noisy.dtype), noisy)

    def forward(self, x: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        """Refined features (B, N, d) of x (B, N, d), given text tokens (B, T, d) and their mask (B, T)."""
        for block in self.blocks:
            x = block(x, text, mask)
        return self.norm(x)

    def restoration_error(self, refined: Tensor, clean: Tensor) -> Tensor:
        """Mean squared error of what is restored against the clean features, normalised, no gradient."""
        target = F.layer_norm(clean.detach().float(), clean.shape[-1:])
        return F.mse_loss(self.restore(refined).float(), target)
