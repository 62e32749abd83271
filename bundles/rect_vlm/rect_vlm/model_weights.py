"""Tensors by name between a model and its files: every key fits, or an error says which ones do not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

SHOWN = 5  # keys named in an error


def load_tensors(into: Mapping[str, Tensor], state: Mapping[str, Tensor], source: str) -> None:
    """Copy every tensor of `state` over the one of the same name.

    Args:
        into: the live tensors of a model.
        state: as many tensors with the same names and shapes.
        source: where `state` comes from, for the error.

    Raises:
        ValueError: names that are missing or too many, or another shape; nothing has been copied then.
    """
    shapes = [
        f"{key} {tuple(state[key].shape)} for {tuple(tensor.shape)}"
        for key, tensor in into.items()
        if key in state and state[key].shape != tensor.shape
    ]
    problems = {
        "missing": [key for key in into if key not in state],
        "unknown": [key for key in state if key not in into],
        "of another shape": shapes,
    }
    if found := [f"{len(keys)} {what}: {_some(keys)}" for what, keys in problems.items() if keys]:
        raise ValueError(f"{source} does not fit the model; {'; '.join(found)}")
    with torch.no_grad():
        for key, tensor in into.items():
            tensor.copy_(state[key])


def of_parts(state: Mapping[str, Tensor], parts: Iterable[str]) -> dict[str, Tensor]:
    """The tensors whose key begins with the name of one of the parts."""
    wanted = set(parts)
    return {key: tensor for key, tensor in state.items() if key.split(".")[0] in wanted}


def _some(keys: list[str]) -> str:
    return ", ".join(sorted(keys)[:SHOWN]) + (", ..." if len(keys) > SHOWN else "")
