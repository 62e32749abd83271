"""The distillation trainer: frozen teachers, a student, named loss terms, mixed precision, guards."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from monai.engines import SupervisedTrainer
from torch import Tensor, nn

from medbundles.engines.guards import check_finite
from medbundles.precision import Precision

Terms = Callable[[nn.Module, dict[str, Any], Engine], Mapping[str, Tensor]]


def freeze(module: nn.Module) -> nn.Module:
    """Put a teacher in eval mode with no parameter requiring a gradient; returns the same module."""
    module.eval()
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    return module


class DistillationTrainer(SupervisedTrainer):
    """MONAI's supervised trainer whose step minimises the sum of named loss terms.

    Args:
        precision: device, autocast and scaler.
        max_epochs: number of epochs.
        train_data_loader: batches as dicts of tensors and lists.
        network: the module that trains; wrapped for distributed training when a process group is up.
        optimizer: its optimizer.
        terms: `terms(network, batch, engine) -> {name: weighted scalar}`; tensors of `batch` are on the
            device.
        teachers: modules that are frozen when the run starts and kept in eval mode.
        lr_scheduler: stepped whenever the weights have moved.
        clip, clip_by: largest gradient `norm`, or `value` of an element; None for no clipping.
        forward: makes the module that distributed training wraps from `network`, when the loss needs more
            than `network(...)` returns.
        accumulate: batches whose gradients are added up, each divided by this number, before the weights
            move; the last batch of an epoch always moves them.
        train_handlers: further handlers.
    """

    def __init__(
        self,
        precision: Precision,
        max_epochs: int,
        train_data_loader: Any,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        terms: Terms,
        teachers: Sequence[nn.Module] = (),
        lr_scheduler: Any = None,
        clip: float | None = 1.0,
        clip_by: str = "norm",
        forward: Callable[[Any], nn.Module] | None = None,
        accumulate: int = 1,
        train_handlers: Sequence[Any] | None = None,
    ) -> None:
        super().__init__(
            device=precision.device,
            max_epochs=max_epochs,
            train_data_loader=train_data_loader,
            network=precision.prepare(network),
            optimizer=optimizer,
            loss_function=lambda *_: None,
            train_handlers=train_handlers,
            decollate=False,
        )
        if clip_by not in ("norm", "value"):
            raise ValueError(f"clip_by must be 'norm' or 'value', got {clip_by=}")
        self.precision, self.terms, self.lr_scheduler = precision, terms, lr_scheduler
        self.clip, self.clip_by = clip, clip_by
        self.teachers = [precision.prepare(teacher) for teacher in teachers]
        if accumulate < 1:
            raise ValueError(f"accumulate must be at least 1, got {accumulate=}")
        self.accumulate = accumulate
        self.module = self.distributed(forward(network) if forward else network)
        # At the start and not here: a teacher may still be trained between construction and run.
        self.add_event_handler(Events.EPOCH_STARTED, lambda _: [freeze(t) for t in self.teachers])

    def distributed(self, module: nn.Module) -> nn.Module:
        """The module itself, or with a process group up the wrapper that averages its gradients."""
        if idist.get_world_size() == 1:
            return module
        devices = [self.precision.device.index] if self.precision.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(module, device_ids=devices, find_unused_parameters=True)

    def _iteration(self, engine: Any, batchdata: dict[str, Any]) -> dict[str, Tensor]:
        batch = self.precision.batch(batchdata)
        self.network.train()
        index, last = self._position()
        if index % self.accumulate == 0:
            self.optimizer.zero_grad(set_to_none=True)
        terms = self.terms(self.module, batch, engine)
        total = torch.stack([term.float() for term in terms.values()]).sum()
        check_finite({"loss": total, **terms}, engine)
        if last or (index + 1) % self.accumulate == 0:
            self._update(total, terms, engine)
        else:
            self.precision.scaler.scale(total / self.accumulate).backward()
        return {"loss": total.detach(), **{name: term.detach() for name, term in terms.items()}}

    def _position(self) -> tuple[int, bool]:
        """Number of this batch in its epoch, and whether it is the last one."""
        length = self.state.epoch_length or 1
        index = (self.state.iteration - 1) % length
        return index, index == length - 1

    def _update(self, total: Tensor, terms: Mapping[str, Tensor], engine: Any) -> None:
        share = total / self.accumulate
        norm = self.precision.step(share, self.optimizer, self.network.parameters(), self.clip, self.clip_by)
        if norm is not None and not self.precision.scaler.is_enabled():
            check_finite({**terms, "gradient_norm": norm}, engine)
        if self.lr_scheduler is not None:
            self.lr_scheduler.step()
