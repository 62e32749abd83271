"""Dropout off for a while: for rollouts, and for log-probabilities that must repeat exactly."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def dropout_off(module: nn.Module, checkpointing: bool = False) -> Iterator[None]:
    """Put a module in evaluation mode and give every part its own mode back at the end.

    Args:
        module: with all its parts.
        checkpointing: let layers that recompute their activations go on doing so, which transformers stops
            in evaluation mode. They recompute in the backward pass, after the block, in the mode that the
            parts inside them have then: for gradients without dropout these must be in it anyway.
    """
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        if checkpointing:
            for part, training in modes.items():
                if getattr(part, "gradient_checkpointing", False):
                    part.training = training
        yield
    finally:
        for part, training in modes.items():
            part.training = training
