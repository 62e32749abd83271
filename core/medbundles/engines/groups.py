"""How the parameters of a network are grouped for an optimizer."""

from collections.abc import Iterable
from typing import Any

from torch import nn


def parameter_groups(parameters: Iterable[nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """Two groups of what is trained: matrices decay, biases and norms (one dimension) do not."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
