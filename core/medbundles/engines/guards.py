"""Guards of a run: stop on a non-finite loss with a clear message, stop early when validation stalls."""

from collections.abc import Mapping
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import Tensor


class NonFiniteLossError(RuntimeError):
    """A loss term became NaN or infinite; the checkpoints written so far are untouched."""


def check_finite(terms: Mapping[str, Tensor], engine: Engine, hint: str = "") -> None:
    """Raise NonFiniteLossError naming epoch, iteration and every term if one of them is NaN or infinite."""
    if torch.isfinite(torch.stack([t.detach().float() for t in terms.values()])).all():
        return
    values = ", ".join(f"{name}={term.item():.6g}" for name, term in terms.items())
    raise NonFiniteLossError(
        f"the loss must be finite, got {values} "
        f"in epoch {engine.state.epoch}, iteration {engine.state.iteration}. "
        f"Lower the learning rate or set amp to 'off'; look at the inputs of this batch. {hint}".strip()
    )


class EarlyStop:
    """End training when the validation metric has not risen by `min_delta` for `patience` epochs.

    Args:
        evaluator: the validation engine.
        metric: key of `evaluator.state.metrics`, higher is better.
        patience: epochs to wait; 0 never stops.
        min_delta: smallest rise that counts.
    """

    def __init__(self, evaluator: Engine, metric: str, patience: int, min_delta: float = 0.0) -> None:
        self.evaluator, self.metric, self.patience, self.min_delta = evaluator, metric, patience, min_delta
        self.best, self.waited = -float("inf"), 0
        self.trainer: Engine | None = None

    def restart(self, name: str) -> None:
        """Begin another run of the same trainer, called `name`."""
        self.best, self.waited = -float("inf"), 0

    def attach(self, trainer: Engine) -> None:
        self.trainer = trainer
        self.evaluator.add_event_handler(Events.COMPLETED, self)

    def __call__(self, evaluator: Engine) -> None:
        value = float(evaluator.state.metrics[self.metric])
        if value > self.best + self.min_delta:
            self.best, self.waited = value, 0
            return
        self.waited += 1
        if self.patience and self.waited >= self.patience and self.trainer is not None:
            self.trainer.terminate()

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "waited": self.waited}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.best, self.waited = state["best"], state["waited"]
