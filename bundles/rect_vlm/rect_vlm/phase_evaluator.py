"""Validation of a phase: each task that it trains, by the measure that task is judged by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from ignite.engine import Events
from medbundles.precision import Precision
from monai.engines import SupervisedEvaluator
from torch import Tensor

from rect_vlm.finding_scores import mean_defined, ranking_scores
from rect_vlm.lesion_tokens import with_lesions
from rect_vlm.model import ReCTVLM
from rect_vlm.report_labeler import label_reports
from rect_vlm.report_scores import label_scores
from rect_vlm.task_terms import true_masks

Batch = dict[str, Any]
THRESHOLD = 0.5


class PhaseEvaluator(SupervisedEvaluator):
    """Validate the tasks of the present phase; every process reads all scans.

    `state.metrics` holds, of the tasks in `tasks`: `val_auroc` (macro over the findings that have both
    classes), `val_dice` (mean over scans and lesions that have a mask with a lesion), `val_false_ml` (volume
    outlined where there is none, mean over those), `val_label_f1` (micro F1 of the 18 findings read by the
    rule labeler in generated and in true reports), and `val_score`, the mean of the first, second and fourth.

    Args:
        model: all parts.
        precision: device and autocast.
        val_data_loader: batches of the validation scans.
        reports: reports written at most, the first ones; writing is slow.
        max_new_tokens: longest report.
        val_handlers: further handlers.
    """

    def __init__(
        self,
        model: ReCTVLM,
        precision: Precision,
        val_data_loader: Any,
        reports: int = 32,
        max_new_tokens: int = 200,
        val_handlers: Sequence[Any] | None = None,
    ) -> None:
        super().__init__(
            device=precision.device,
            val_data_loader=val_data_loader,
            network=precision.prepare(model),
            val_handlers=val_handlers,
            decollate=False,
        )
        self.model, self.precision = model, precision
        self.reports, self.max_new_tokens = reports, max_new_tokens
        self.tasks: Sequence[str] = ()
        self.rows: list[dict[str, Any]] = []
        self.add_event_handler(Events.STARTED, self.rows.clear)
        self.add_event_handler(Events.COMPLETED, self._score)

    def _iteration(self, engine: Any, batchdata: Batch) -> dict[str, Any]:
        batch = self.precision.batch(batchdata)
        self.model.eval()
        row: dict[str, Any] = {}
        with torch.no_grad(), self.precision.autocast():
            vision = self.model.encode(batch["image"], batch["regions"])
            if "cls" in self.tasks:
                probabilities = self.model.probabilities(vision)
                row |= {"probabilities": probabilities.cpu(), "labels": batch["labels"].cpu()}
            if "loc" in self.tasks:
                masks = self.model.masks(vision, batch["image"])
                row |= overlap(masks > THRESHOLD, batch["masks"] > 0, batch["mask_known"])
                row["false"] *= batch["affine"][:, :3, :3].double().det().abs().cpu().reshape(-1, 1) / 1000
            written = sum(len(kept.get("said", ())) for kept in self.rows)
            if "gen" in self.tasks and written < self.reports:
                row |= {"said": self._write(vision, batch), "true": batch["report"]}
        self.rows.append(row)
        return row

    def _write(self, vision: Mapping[str, Tensor], batch: Batch) -> list[str]:
        """Reports with the evidence that training gives: the model's own once it has been trained for it."""
        own = {"cls", "loc"} <= set(self.tasks)
        told: tuple[Mapping[str, Tensor], list[list[str]]] = (
            self.model.told(vision, batch["image"], batch["regions"])
            if own
            else (with_lesions(vision, true_masks(batch), self.model.geometry.patch), batch["evidence"])
        )
        return self.model.load_generator().generate(
            *told, max_new_tokens=self.max_new_tokens, do_sample=False
        )

    def _score(self) -> None:
        scores: dict[str, float] = {}
        self.state.metrics.clear()  # those of the tasks of an earlier phase
        if "cls" in self.tasks:
            probabilities, labels = self._all("probabilities"), self._all("labels")
            scores["val_auroc"] = macro_auroc(probabilities.numpy(), labels.numpy())
        if "loc" in self.tasks:
            scores["val_dice"] = float(self._all("dice").nanmean())
            self.state.metrics["val_false_ml"] = float(self._all("false").nanmean())
        if "gen" in self.tasks:
            said = [text for row in self.rows for text in row.get("said", ())]
            true = [text for row in self.rows for text in row.get("true", ())]
            scores["val_label_f1"] = label_f1(said, true)
        self.state.metrics |= {**scores, "val_score": float(np.mean(list(scores.values())))}

    def _all(self, key: str) -> Tensor:
        return torch.cat([row[key] for row in self.rows])


def overlap(found: Tensor, true: Tensor, known: Tensor) -> dict[str, Tensor]:
    """`dice` (B, K) where there is a lesion and `false` voxels (B, K) where there is none; NaN elsewhere.

    Args:
        found, true: (B, K, D, H, W) bool.
        known: (B, K) whether `true` says anything.
    """
    sizes = found.flatten(2).sum(2) + true.flatten(2).sum(2)
    both = (found & true).flatten(2).sum(2)
    present = true.flatten(2).any(2)
    nan = torch.full(sizes.shape, torch.nan, device=sizes.device)
    dice = torch.where(known & present, 2 * both / sizes, nan)
    false = torch.where(known & ~present, found.flatten(2).sum(2).float(), nan)
    return {"dice": dice.cpu(), "false": false.cpu()}


def macro_auroc(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean AUROC over the findings whose known labels (n, 18) hold both classes; NaN if none does."""
    return float(mean_defined(ranking_scores(probabilities, labels)["auroc"]))


def label_f1(said: Sequence[str], true: Sequence[str]) -> float:
    """Micro F1 over scans and findings of what the rule labeler reads in two lists of reports."""
    return label_scores(label_reports(said), label_reports(true))["rule labeler micro f1"]
