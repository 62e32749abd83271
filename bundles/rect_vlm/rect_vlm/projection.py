"""The small network that takes texts and images into a common space."""

from torch import nn


def projection_head(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Linear, LayerNorm, GELU, linear, LayerNorm: (..., inputs) -> (..., outputs)."""
    return nn.Sequential(
        nn.Linear(inputs, hidden),
        nn.LayerNorm(hidden),
        nn.GELU(),
        nn.Linear(hidden, outputs),
        nn.LayerNorm(outputs),
    )
