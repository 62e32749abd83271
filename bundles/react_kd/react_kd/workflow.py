"""What one training step of teacher and student minimises, and how validation reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from ignite.engine import Engine
from ignite.metrics import EpochMetric, Metric
from medbundles.engines import DistillationTrainer
from medbundles.precision import Precision
from monai.engines import SupervisedEvaluator
from torch import Tensor, nn

from react_kd.losses import UNGRADED, GradeLoss
from react_kd.metrics import roc_auc
from react_kd.networks import Student, Teacher

Batch = dict[str, Any]


def teacher_availability(batch: Batch, dropout: float = 0.0) -> Tensor:
    """Bool (B, 3) for [FDG, ACT, dose]: what a case has, less each stream dropped with probability `dropout`.

    The dose stream is CT and never missing, so a case always keeps a stream.
    """
    available = torch.cat(
        [batch["pet_available"].bool(), torch.ones_like(batch["pet_available"][:, :1]).bool()], 1
    )
    if dropout > 0:
        kept = torch.rand(available.shape, device=available.device) >= dropout
        kept[:, 2] |= ~(available & kept).any(dim=1)
        available = available & kept
    return available


def student_availability(batch: Batch, dropout: float = 0.0, drop_pet_share: float = 0.5) -> Tensor:
    """Bool (B, 2) for [CT, PET]; with probability `dropout` a case that has both loses one of them.

    It is PET with probability `drop_pet_share` and CT otherwise, never both. The teacher is not affected.
    """
    pet = batch["pet_available"].bool().any(dim=1)
    drop, which = torch.rand(2, len(pet), device=pet.device)
    dropped = pet & (drop < dropout)
    lose_pet = dropped & (which < drop_pet_share)
    return torch.stack([~(dropped & ~lose_pet), pet & ~lose_pet], dim=1)


def teach(teacher: nn.Module, batch: Batch, available: Tensor) -> dict[str, Tensor]:
    """What the teacher says of a batch; without the key `dose` its dose stream sees the full-dose CT."""
    return teacher(batch["image"], batch["pet"], batch.get("dose", batch["image"]), available)


class StudentView(nn.Module):
    """Puts everything the losses need behind `forward`, the one call that distributed training watches."""

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.student = student

    def forward(self, batch: Batch, available: Tensor) -> dict[str, Tensor]:
        return self.student.encode(torch.cat([batch["image"], batch["pet"]], dim=1), available)


def teacher_trainer(
    precision: Precision,
    max_epochs: int,
    train_data_loader: Any,
    teacher: Teacher,
    optimizer: torch.optim.Optimizer,
    lr_scheduler: Any = None,
    stream_dropout: float = 0.2,
    auxiliary: float = 0.5,
    gamma: float = 2.0,
    train_handlers: Sequence[Any] | None = None,
) -> DistillationTrainer:
    """Trainer of the dual teacher: focal loss of the fused logits and, weighted `auxiliary`, of both parts.

    `stream_dropout` lets the teacher speak for cases with CT alone, which take part in distillation later.
    """
    grade = GradeLoss(gamma)

    def terms(network: nn.Module, batch: Batch, engine: Engine) -> dict[str, Tensor]:
        graded = batch["label"] >= 0
        if bool(graded.any()):  # an ungraded case has nothing to teach a teacher
            batch = {k: v[graded] if isinstance(v, Tensor) else v for k, v in batch.items()}
        available = teacher_availability(batch, stream_dropout)
        with precision.autocast(windowed=True):
            said = network(batch["image"], batch["pet"], batch.get("dose", batch["image"]), available)
        traced = torch.where(available[:, :2].any(dim=1), batch["label"], -1)
        return {
            "fused": grade(said["logits"], batch["label"]),
            "function": auxiliary * grade(said["sf_logits"], traced),
            "dose": auxiliary * grade(said["dose_logits"], batch["label"]),
        }

    return DistillationTrainer(
        precision, max_epochs, train_data_loader, teacher, optimizer, terms,
        lr_scheduler=lr_scheduler, train_handlers=train_handlers,
    )  # fmt: skip


def student_trainer(
    precision: Precision,
    max_epochs: int,
    train_data_loader: Any,
    network: Student,
    teacher: Teacher,
    optimizer: torch.optim.Optimizer,
    loss: nn.Module,
    lr_scheduler: Any = None,
    modality_dropout: float = 0.3,
    drop_pet_share: float = 0.5,
    train_handlers: Sequence[Any] | None = None,
) -> DistillationTrainer:
    """Trainer of the student: `loss(student, teacher, batch, epoch)` returns the named terms.

    The teacher always sees all that a case has; modality dropout is the student's alone.
    """

    def terms(view: nn.Module, batch: Batch, engine: Engine) -> dict[str, Tensor]:
        with torch.no_grad(), precision.autocast(windowed=True):
            taught = teach(teacher, batch, teacher_availability(batch))
        with precision.autocast():
            learned = view(batch, student_availability(batch, modality_dropout, drop_pet_share))
        return loss(learned, taught, batch, engine.state.epoch - 1)

    return DistillationTrainer(
        precision, max_epochs, train_data_loader, network, optimizer, terms, teachers=[teacher],
        lr_scheduler=lr_scheduler, forward=StudentView, train_handlers=train_handlers,
    )  # fmt: skip


def one_cycle(optimizer: torch.optim.Optimizer, max_lr: float, epochs: int, loader: Any) -> Any:
    """One-cycle schedule over all iterations of a run (Smith and Topin, 2019)."""
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr, epochs=epochs, steps_per_epoch=len(loader))


class GradingEvaluator(SupervisedEvaluator):
    """Validation of a teacher or student; `conditions` names what each case may show.

    For every condition c, `state.metrics` holds `<name>_auc` (macro one-vs-rest) and `<name>_acc`, named
    `val` for the first condition and `val_<c>` for the others.

    Args:
        network: a Teacher or Student.
        precision: device and autocast.
        val_data_loader: batches of the validation cases; every process reads all of them.
        conditions: of `ct` (CT alone) and `all` (everything a case has).
    """

    def __init__(
        self,
        network: nn.Module,
        precision: Precision,
        val_data_loader: Any,
        conditions: Sequence[str] = ("ct", "all"),
        val_handlers: Sequence[Any] | None = None,
    ) -> None:
        metrics: dict[str, Metric] = {}
        for i, condition in enumerate(conditions):
            prefix = "val" if i == 0 else f"val_{condition}"
            for score, function in (("auc", _macro_auc), ("acc", _accuracy)):
                metrics[f"{prefix}_{score}"] = EpochMetric(
                    function,
                    output_transform=lambda out, c=condition: (out[c], out["label"]),  # type: ignore[misc]
                    check_compute_fn=False,
                )
        first = next(iter(metrics))
        super().__init__(
            device=precision.device,
            val_data_loader=val_data_loader,
            network=precision.prepare(network),
            key_val_metric={first: metrics.pop(first)},
            additional_metrics=metrics,
            val_handlers=val_handlers,
            decollate=False,
        )
        self.precision, self.conditions = precision, tuple(conditions)

    def _iteration(self, engine: Any, batchdata: Batch) -> dict[str, Tensor]:
        batch = self.precision.batch(batchdata)
        self.network.eval()
        with torch.no_grad():
            probs = {c: self._logits(batch, c).float().softmax(dim=1) for c in self.conditions}
        return {**probs, "label": batch["label"]}

    def _logits(self, batch: Batch, condition: str) -> Tensor:
        if isinstance(self.network, Teacher):
            available = teacher_availability(batch)
            if condition == "ct":
                available[:, :2] = False
            full = {key: value for key, value in batch.items() if key != "dose"}
            with self.precision.autocast(windowed=True):
                return teach(self.network, full, available)["logits"]
        with self.precision.autocast():
            if condition == "ct":
                return self.network(batch["image"])
            return self.network(torch.cat([batch["image"], batch["pet"]], dim=1), student_availability(batch))


def _macro_auc(probs: Tensor, label: Tensor) -> float:
    graded = label != UNGRADED
    return float(roc_auc(probs[graded].double().numpy(), label[graded].numpy())["macro"])


def _accuracy(probs: Tensor, label: Tensor) -> float:
    return float((probs.argmax(dim=1) == label)[label != UNGRADED].double().mean())
