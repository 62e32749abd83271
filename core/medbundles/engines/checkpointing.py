"""Checkpoints that survive a kill: best weights as a raw state dict, and everything an exact resume needs."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from torch import nn

from medbundles.atomic import replacing

logger = logging.getLogger(__name__)


def save_atomic(obj: Any, path: Path) -> None:
    """torch.save beside the file, then rename: a full disk or a kill never harms the old file."""
    with replacing(path) as temporary:
        try:
            torch.save(obj, temporary)
        except RuntimeError as error:  # torch's zip writer hides the reason, mostly a full disk
            raise OSError(f"torch could not write all of it, is the disk full? ({error})") from error


def save_weights(state: Mapping[str, torch.Tensor], path: Path) -> None:
    """Save a raw state dict, its tensors on the CPU; errors as in `save_atomic`."""
    save_atomic(_on_cpu(state), path)


def load_weights(module: nn.Module, path: str | Path, what: str = "checkpoint") -> None:
    """Load a raw state dict strictly with weights_only=True.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a state dict, or of another architecture; names up to five differing keys.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{what}: no file {path}")
    state = _read(path, what)
    if not isinstance(state, Mapping) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ValueError(
            f"{what}: {path} must hold one raw state dict of tensors, got {type(state).__name__}"
        )
    wrong = _differences(module.state_dict(), state)
    if wrong:
        shown = "; ".join(sorted(wrong)[:5])
        raise ValueError(f"{what}: {path} is of another architecture; {len(wrong)} keys differ: {shown}")
    module.load_state_dict(state)


def _read(path: Path, what: str) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(
            f"{what}: {path} is not a readable weights file ({type(error).__name__}: {error})"
        ) from error


def _differences(expected: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor]) -> list[str]:
    wrong = [f"missing {k}" for k in expected.keys() - state.keys()]
    wrong += [f"unexpected {k}" for k in state.keys() - expected.keys()]
    return wrong + [
        f"{k} must be {tuple(expected[k].shape)}, got {tuple(state[k].shape)}"
        for k in expected.keys() & state.keys()
        if expected[k].shape != state[k].shape
    ]


class Checkpointing:
    """Save the best weights by a validation metric, and after every epoch all that an exact resume needs.

    `<directory>/<name>.pt` is the raw state dict of the best epoch; `<directory>/<name>_resume.pt` holds
    epoch, model,
    the `state` objects, the best metric and the fingerprint. It is removed when training completes.

    Args:
        directory: checkpoint folder.
        name: stem of the two files.
        model: what is saved: a module, or anything with `state_dict` and `load_state_dict`.
        state: objects with state_dict/load_state_dict (optimizer, scheduler, scaler, loss, early stopping).
        evaluator: the validation engine, run before this handler in the same epoch.
        metric: key of `evaluator.state.metrics`, higher is better.
        fingerprint: what must be equal for a resume to make sense (sizes, rates, data); any JSON-like value.
        resume: continue from the resume file if there is one with the same fingerprint.
    """

    def __init__(
        self,
        directory: str | Path,
        name: str,
        model: Any,
        state: Mapping[str, Any],
        evaluator: Engine,
        metric: str,
        fingerprint: Mapping[str, Any] | None = None,
        resume: bool = True,
    ) -> None:
        self.directory = Path(directory)
        self.model, self.state, self.evaluator, self.metric = model, dict(state), evaluator, metric
        self.fingerprint = _digest(fingerprint or {})
        self.resume = resume
        self.restart(name)

    def restart(
        self,
        name: str,
        model: Any = None,
        state: Mapping[str, Any] | None = None,
        fingerprint: Mapping[str, Any] | None = None,
    ) -> None:
        """Begin another run of the same trainer, whose files are called `name`; what is None stays."""
        self.model = self.model if model is None else model
        self.state = self.state if state is None else dict(state)
        self.fingerprint = self.fingerprint if fingerprint is None else _digest(fingerprint)
        self.best_path = self.directory / f"{name}.pt"
        self.resume_path = self.directory / f"{name}_resume.pt"
        self.best, self.best_epoch = -float("inf"), 0

    def attach(self, trainer: Engine) -> None:
        trainer.add_event_handler(Events.STARTED, self._load)
        self.evaluator.add_event_handler(Events.COMPLETED, self._save_best, trainer)
        trainer.add_event_handler(Events.EPOCH_COMPLETED, self._save)
        trainer.add_event_handler(Events.COMPLETED, self._finish)

    def _load(self, trainer: Engine) -> None:
        if not (self.resume and self.resume_path.is_file()):
            return
        saved = _read(self.resume_path, "resume")
        other_network = _differences(self.model.state_dict(), saved["model"])
        if saved["fingerprint"] != self.fingerprint or other_network:
            logger.warning("%s belongs to a run with other settings: training starts anew", self.resume_path)
            return
        self.model.load_state_dict(saved["model"])
        for key, item in self.state.items():
            item.load_state_dict(saved["state"][key])
        self.best, self.best_epoch = saved["best"], saved["best_epoch"]
        trainer.state.epoch = saved["epoch"]
        trainer.state.iteration = saved["iteration"]
        logger.info("resuming after epoch %d from %s", saved["epoch"], self.resume_path)

    def _save_best(self, evaluator: Engine, trainer: Engine) -> None:
        value = float(evaluator.state.metrics[self.metric])
        # A metric that is NaN (an absent class) must still leave a checkpoint behind.
        if value > self.best or self.best_epoch == 0:
            self.best, self.best_epoch = value, trainer.state.epoch
            self._save_weights()

    def _save_weights(self) -> None:
        if idist.get_rank() == 0:
            save_weights(self.model.state_dict(), self.best_path)

    def _save(self, trainer: Engine) -> None:
        if idist.get_rank() == 0:
            save_atomic(
                {
                    "fingerprint": self.fingerprint,
                    "epoch": trainer.state.epoch,
                    "iteration": trainer.state.iteration,
                    "model": _on_cpu(self.model.state_dict()),
                    "state": {key: item.state_dict() for key, item in self.state.items()},
                    "best": self.best,
                    "best_epoch": self.best_epoch,
                },
                self.resume_path,
            )

    def _finish(self, trainer: Engine) -> None:
        # A run shorter than the validation interval: the last weights are the best there are.
        if self.best_epoch == 0:
            self._save_weights()
        if idist.get_rank() == 0:
            self.resume_path.unlink(missing_ok=True)


def _digest(fingerprint: Mapping[str, Any]) -> str:
    return repr(sorted(fingerprint.items()))


def _on_cpu(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key: value.detach().cpu().contiguous() for key, value in state.items()}
