"""What takes texts and images into a common space: standardised vectors and a small network."""

import torch
from torch import Tensor, nn

SMALLEST_STD = 1e-5


def standardised(vectors: Tensor) -> Tensor:
    """Vectors (n, D) with mean 0 and spread 1 in every feature."""
    std, mean = torch.std_mean(vectors, dim=0, correction=0, keepdim=True)
    return (vectors - mean) / std.clamp_min(SMALLEST_STD)


def projection_head(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Linear, LayerNorm, GELU, linear, LayerNorm: (..., inputs) -> (..., outputs)."""
    return nn.Sequential(
        nn.Linear(inputs, hidden),
        nn.LayerNorm(hidden),
        nn.GELU(),
        nn.Linear(hidden, outputs),
        nn.LayerNorm(outputs),
    )
