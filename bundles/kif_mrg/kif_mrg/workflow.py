"""What one training step of a reporter minimises, how fast, and how validation reads its reports."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine, Events
from medbundles import engines
from medbundles.engines import DistillationTrainer
from medbundles.precision import Precision
from medbundles.text.efficacy import clinical_efficacy
from medbundles.text.labeler import label_reports
from medbundles.text.nlg import bleu
from monai.engines import SupervisedEvaluator
from torch import Tensor, nn

from kif_mrg.conditions import IGNORE
from kif_mrg.networks import KifReporter
from kif_mrg.prior import ClassPrior

Batch = dict[str, Any]
WARMUP_STEPS, WARMUP_SHARE = 2000, 0.05
FINAL = 0.1  # of the learning rate, at the end of the cosine


def parameter_groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Groups of a network's parameters for an optimizer, see medbundles.engines.parameter_groups."""
    return engines.parameter_groups(network.parameters(), weight_decay)


def warmup_cosine(
    optimizer: torch.optim.Optimizer, epochs: int, loader: Any, kind: str = "steps"
) -> torch.optim.lr_scheduler.LambdaLR:
    """Linear warm-up, then a cosine to a tenth of the learning rate; stepped after every iteration.

    Args:
        optimizer: holds the highest learning rate.
        epochs: length of the run.
        loader: its length is the number of iterations of an epoch.
        kind: `steps`, a warm-up of 5 % of the run, 2000 iterations at most, and a smooth cosine; or
            `authors`, as PromptMRG does (arXiv 2308.12604): warm-up inside the first epoch only, then one
            rate per epoch.

    Raises:
        ValueError: unknown kind.
    """
    if kind not in ("steps", "authors"):
        raise ValueError(f"lr_schedule must be 'steps' or 'authors', got {kind!r}")
    per_epoch, steps = len(loader), epochs * len(loader)
    warmup = max(1, min(WARMUP_STEPS, round(WARMUP_SHARE * steps))) if kind == "steps" else WARMUP_STEPS

    def cosine(share: float) -> float:
        return FINAL + (1 - FINAL) * (1 + math.cos(math.pi * min(share, 1.0))) / 2

    def by_step(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return cosine((step - warmup) / max(1, steps - warmup))

    def by_epoch(step: int) -> float:
        epoch = step // per_epoch + 1
        if epoch == 1:
            return 0.01 + 0.99 * min(1.0, step / warmup)
        return cosine(epoch / epochs)

    return torch.optim.lr_scheduler.LambdaLR(optimizer, by_step if kind == "steps" else by_epoch)


def reporter_trainer(
    precision: Precision,
    max_epochs: int,
    train_data_loader: Any,
    network: KifReporter,
    loss: nn.Module,
    prior: ClassPrior,
    optimizer: torch.optim.Optimizer,
    lr_scheduler: Any = None,
    clip: float | None = 1.0,
    clip_by: str = "norm",
    train_handlers: Sequence[Any] | None = None,
) -> DistillationTrainer:
    """Trainer of one round; with a module in `trainer.teachers` the terms of self-distillation are added.

    The prompt holds the true states. The teacher is forced on the same prompt and tokens.
    """
    prior.to(precision.device)

    def terms(reporter: nn.Module, batch: Batch, engine: Engine) -> dict[str, Tensor]:
        teachers: list[nn.Module] = engine.teachers  # type: ignore[attr-defined]
        given = batch["image"], batch.get("memory"), batch["labels"], batch["tokens"]
        taught = None
        with precision.autocast():
            if teachers:
                with torch.no_grad():
                    taught = teachers[0](*given)
            said = reporter(*given)
        return loss(said, taught, batch, prior.log_prior)

    return DistillationTrainer(
        precision, max_epochs, train_data_loader, network, optimizer, terms,
        lr_scheduler=lr_scheduler, clip=clip, clip_by=clip_by, train_handlers=train_handlers,
    )  # fmt: skip


class ReportEvaluator(SupervisedEvaluator):
    """Validation of a reporter by what its own reports say; every process reads all cases.

    `state.metrics` holds `val_ce_f1` (example-based F1 of clinical efficacy by the rule labeler, on both the
    generated and the true report), `val_bleu4` and `val_state_acc` (states of the diagnosis head, over the
    labelled ones). After a run the class prior is estimated anew from its positives.

    Args:
        network: the reporter.
        precision: device and autocast.
        val_data_loader: batches of the validation cases.
        prior: updated in `COMPLETED`; None leaves it alone.
        num_beams, max_new_tokens, min_new_tokens: see KifReporter.generate.
        val_handlers: further handlers.
    """

    def __init__(
        self,
        network: KifReporter,
        precision: Precision,
        val_data_loader: Any,
        prior: ClassPrior | None = None,
        num_beams: int = 1,
        max_new_tokens: int = 100,
        min_new_tokens: int = 8,
        val_handlers: Sequence[Any] | None = None,
    ) -> None:
        super().__init__(
            device=precision.device,
            val_data_loader=val_data_loader,
            network=precision.prepare(network),
            val_handlers=val_handlers,
            decollate=False,
        )
        self.reporter, self.precision, self.prior = network, precision, prior
        self.search: dict[str, Any] = {
            "num_beams": num_beams, "max_new_tokens": max_new_tokens, "min_new_tokens": min_new_tokens
        }  # fmt: skip
        self.rows: list[dict[str, Any]] = []
        self.add_event_handler(Events.STARTED, self._share_buffers)
        self.add_event_handler(Events.STARTED, self.rows.clear)
        self.add_event_handler(Events.COMPLETED, self._score)

    def _share_buffers(self) -> None:
        """Validate what the first process saves: each has statistics of its own in its batch norms."""
        if idist.get_world_size() > 1:
            for buffer in self.network.buffers():
                first: Any = idist.broadcast(buffer)
                buffer.copy_(first)

    def _iteration(self, engine: Any, batchdata: Batch) -> dict[str, Any]:
        batch = self.precision.batch(batchdata)
        self.network.eval()
        with torch.no_grad(), self.precision.autocast():
            said = self.reporter.generate(batch["image"], batch.get("memory"), **self.search)
        comparable = self.reporter.tokenizer.comparable
        self.rows.append(
            {
                "report": [comparable(text) for text in said["reports"]],
                "reference": [comparable(text) for text in batch["report"]],
                "class_logits": said["class_logits"].float().cpu(),
                "labels": batch["labels"].cpu(),
            }
        )
        return said

    def _score(self) -> None:
        reports = [text for row in self.rows for text in row["report"]]
        references = [text for row in self.rows for text in row["reference"]]
        logits = torch.cat([row["class_logits"] for row in self.rows])
        labels = torch.cat([row["labels"] for row in self.rows])
        efficacy = clinical_efficacy(label_reports(reports), label_reports(references))
        known = labels != IGNORE
        right = (logits.argmax(dim=1) == labels)[known].double()
        self.state.metrics |= {
            "val_ce_f1": efficacy["ce_example_f1"],
            "val_bleu4": bleu(reports, references)["bleu4"],
            "val_state_acc": float(right.mean()) if len(right) else np.nan,
        }
        if self.prior is not None:
            device = self.prior.prior.device
            self.prior.update(logits.to(device), labels.to(device))
