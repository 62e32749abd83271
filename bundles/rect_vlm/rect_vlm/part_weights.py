"""The weights of some parts of a model, as one state dict: what a phase reads and what it writes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from torch import Tensor

from rect_vlm.model import ReCTVLM


class PartWeights:
    """A view of a model that holds only some of its parts; a state dict goes in and out of it.

    Args:
        model: the whole.
        parts: names, see `phases.PARTS`.
    """

    def __init__(self, model: ReCTVLM, parts: Collection[str]) -> None:
        self.model, self.parts = model, tuple(parts)

    def state_dict(self) -> dict[str, Tensor]:
        """Tensors by key, every key with its part in front: `vision.patches.weight`."""
        return self.model.weights_state(self.parts)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load them all.

        Raises:
            ValueError: a key too many, too few, or of another shape.
        """
        self.model.load_weights(state, self.parts, "the checkpoint of a phase")


def read_parts(path: Path, parts: Collection[str], why: str) -> dict[str, Tensor]:
    """Tensors of some parts from the checkpoint of a phase.

    Raises:
        FileNotFoundError: no such file; says what for it is needed.
        ValueError: it holds nothing of a part.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{why}: no file {path}")
    state = torch.load(path, map_location="cpu", weights_only=True)
    found = {key: value for key, value in state.items() if key.split(".")[0] in parts}
    if missing := sorted(set(parts) - {key.split(".")[0] for key in found}):
        raise ValueError(f"{why}: {path} holds no weights of {', '.join(missing)}")
    return found
