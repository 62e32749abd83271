"""One engine that trains phases 1.1 to 2, one after another."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine
from medbundles.engines import Checkpointing, DistillationTrainer, TermLogger, parameter_groups
from medbundles.precision import Precision
from torch import Tensor, nn

from rect_vlm.model import ReCTVLM
from rect_vlm.part_weights import PartWeights
from rect_vlm.phase_evaluator import PhaseEvaluator
from rect_vlm.phases import PARTS, Phase
from rect_vlm.sharding import leave_out_frozen, share_buffers
from rect_vlm.task_terms import TaskTerms

LoaderOf = Callable[..., Any]
METRIC = "val_score"


class PhaseTrainer(DistillationTrainer):
    """Trainer of whichever phase has begun; between phases it changes parts, rates, batches and file names.

    Args:
        model: all parts.
        precision: device, autocast and scaler.
        max_epochs: of the first phase; each phase brings its own.
        train_data_loader: batches of the first phase.
        terms: makes the loss terms.
        optimizer: its groups are made anew by every phase.
        evaluator: validates the tasks of the phase.
        clip: largest norm of the gradient.
        weight_decay: of matrices; biases and norms do not decay.
        train_handlers: those with `restart(name)` are told of a new phase.
    """

    def __init__(
        self,
        model: ReCTVLM,
        precision: Precision,
        max_epochs: int,
        train_data_loader: Any,
        terms: TaskTerms,
        optimizer: torch.optim.Optimizer,
        evaluator: PhaseEvaluator,
        clip: float | None = 1.0,
        weight_decay: float = 0.01,
        train_handlers: Sequence[Any] = (),
    ) -> None:
        self.model, self.task_terms, self.evaluator = model, terms, evaluator
        self.weight_decay, self.handlers = weight_decay, list(train_handlers)
        self.phase: Phase | None = None
        super().__init__(
            precision, max_epochs, train_data_loader, model, optimizer, self._terms,
            clip=clip, train_handlers=train_handlers,
        )  # fmt: skip

    def train_phase(self, phase: Phase, loader: Any, fingerprint: Mapping[str, Any]) -> dict[str, float]:
        """Train a phase, from the present weights or from where it was killed; returns its best metrics."""
        self.phase, self.evaluator.tasks = phase, tuple(phase.losses)
        self.precision.prepare(self.model)
        learning = set_learning(self.model, phase.trains)
        self.optimizer.state.clear()
        self.optimizer.param_groups.clear()
        for part, rate in phase.trains.items():
            for group in parameter_groups(learning[part], self.weight_decay):
                self.optimizer.add_param_group({**group, "lr": rate})
        steps = phase.epochs * math.ceil(len(loader) / phase.accumulate)
        self.lr_scheduler = warmup_cosine(self.optimizer, steps, phase.warmup)
        self.module = self.distributed(self.task_terms.to(self.precision.device))
        self.accumulate = phase.accumulate
        self._restart(phase, loader, fingerprint)
        self.run()  # type: ignore[call-arg]
        idist.barrier()  # the first process writes the file that all read
        keeper = next(handler for handler in self.handlers if isinstance(handler, Checkpointing))
        return {METRIC: keeper.best, "epoch": keeper.best_epoch, **self._metrics_of(keeper.best_epoch)}

    def distributed(self, module: nn.Module) -> nn.Module:
        """As in DistillationTrainer; frozen parts, among them a language model in shares, are left alone."""
        leave_out_frozen(module)
        return super().distributed(module)

    def _iteration(self, engine: Any, batchdata: dict[str, Any]) -> dict[str, Tensor]:
        terms = super()._iteration(engine, batchdata)
        if self._position()[1]:  # validation comes next
            share_buffers(self.task_terms)
        return terms

    def _restart(self, phase: Phase, loader: Any, fingerprint: Mapping[str, Any]) -> None:
        for handler in self.handlers:
            if isinstance(handler, Checkpointing):
                state = {
                    "optimizer": self.optimizer,
                    "scheduler": self.lr_scheduler,
                    "scaler": self.precision,
                }
                handler.restart(phase.stem, PartWeights(self.model, list(phase.trains)), state, fingerprint)
            elif hasattr(handler, "restart"):
                handler.restart(phase.stem)
        self.data_loader = loader
        self.state.dataloader = None
        self.state.epoch = self.state.iteration = 0
        self.state.epoch_length, self.state.max_epochs = len(loader), phase.epochs

    def _metrics_of(self, epoch: int) -> dict[str, float]:
        """Validation metrics of an epoch as they were logged, of this run or of the one it resumed."""
        history = next(handler.history for handler in self.handlers if isinstance(handler, TermLogger))
        rows = [json.loads(line) for line in history.read_text().splitlines()] if history.is_file() else []
        found: dict[str, float] = next((row for row in rows if row["epoch"] == epoch), {})
        return {key: value for key, value in found.items() if key.startswith("val_") and key != METRIC}

    def _terms(self, module: nn.Module, batch: dict[str, Any], engine: Engine) -> dict[str, Tensor]:
        assert self.phase is not None, "train_phase begins a phase"
        for part in PARTS:
            if part not in self.phase.trains and self.model.has_part(part):
                part_module(self.model, part).eval()
        with self.precision.autocast():
            return module(batch, self.phase.losses, tuple(self.phase.trains))


class SupervisedPhases:
    """Trains one phase after another with one trainer.

    Args:
        trainer: the engine.
        loader: makes the training batches of a `batch_size`.
    """

    def __init__(self, trainer: PhaseTrainer, loader: LoaderOf) -> None:
        self.trainer, self.loader = trainer, loader

    def __call__(self, phase: Phase, fingerprint: Mapping[str, Any]) -> dict[str, float]:
        return self.trainer.train_phase(phase, self.loader(batch_size=phase.batch_size), fingerprint)


def set_learning(model: ReCTVLM, trains: Mapping[str, float]) -> dict[str, list[nn.Parameter]]:
    """Give gradients to the named parts and to nothing else; returns their parameters.

    Never the text encoder and never the language model itself: they are in no part.
    """
    model.requires_grad_(False)
    learning = {part: model.modules_by_name[part] for part in trains}
    for parameters in learning.values():
        for parameter in parameters:
            parameter.requires_grad_(True)
    return learning


def part_module(model: ReCTVLM, part: str) -> nn.Module:
    """The module that a part belongs to; that of the LoRA is the language model that carries it."""
    if part in ("projector", "lora"):
        generator = model.require("generator")
        return generator.projector if part == "projector" else generator.llm
    return model.require(part)


def warmup_cosine(
    optimizer: torch.optim.Optimizer, steps: int, warmup: float
) -> torch.optim.lr_scheduler.LambdaLR:
    """A linear rise over a share of the steps, then half a cosine to nothing."""
    rise = max(1, round(warmup * steps))

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / rise
        return (1 + math.cos(math.pi * min(1.0, (step - rise) / max(1, steps - rise)))) / 2

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
