"""The loss terms of a training step: classification, localization, report, as the phase asks for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rect_vlm.lesion_tokens import with_lesions
from rect_vlm.losses import (
    classification_loss,
    lesion_labels,
    localization_loss,
    of_lesions,
    pick_lesions,
)
from rect_vlm.model import ReCTVLM

Batch = Mapping[str, Any]


class TaskTerms(nn.Module):
    """Weighted loss terms of a batch; parts that do not learn are passed without gradient.

    Args:
        model: all parts.
        pos_weight: (18,) weights of the positives of the classification loss, None for 1.
        classification: "bce" or "focal".
        localization: weights of the terms of the localization loss, by name.
        lesions_per_step: lesions outlined per step and scan, see `pick_lesions`.
        drop_evidence: share of the true evidence, lines or lesions, that the generator does not see.
        predicted_evidence: share of the batches in which the generator reads what the model itself finds,
            where classifier and localizer are trained together with it.
    """

    pos_weight: Tensor | None

    def __init__(
        self,
        model: ReCTVLM,
        pos_weight: Tensor | None = None,
        classification: str = "bce",
        localization: Mapping[str, float] | None = None,
        lesions_per_step: int = 2,
        drop_evidence: float = 0.3,
        predicted_evidence: float = 0.5,
    ) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("pos_weight", pos_weight)
        self.classification, self.localization = classification, dict(localization or {})
        self.lesions_per_step = lesions_per_step
        self.drop_evidence, self.predicted_evidence = drop_evidence, predicted_evidence

    def forward(self, batch: Batch, losses: Mapping[str, float], learns: Sequence[str]) -> dict[str, Tensor]:
        """Weighted terms by name.

        Args:
            batch: see `data`.
            losses: weight of every task that takes part.
            learns: parts that get a gradient.
        """
        with torch.set_grad_enabled("vision" in learns):
            vision = self.model.encode(batch["image"], batch["regions"])
        terms: dict[str, Tensor] = {}
        if "cls" in losses:
            logits = self.model.require("classifier")(vision)["logits"]
            loss = classification_loss(logits, batch["labels"], self.pos_weight, self.classification)
            terms["cls"] = losses["cls"] * loss
        if "loc" in losses:
            found = self._localization(vision, batch)
            terms |= {name: losses["loc"] * term for name, term in found.items()}
        if "gen" in losses:
            told = self._told(vision, batch, own={"cls", "loc"} <= set(losses))
            spoken = self.model.load_generator().loss(*told, batch["report"])
            terms["gen"] = losses["gen"] * spoken["gen"]
        return terms

    def _localization(self, vision: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        lesions = pick_lesions(batch["masks"], batch["mask_known"], self.lesions_per_step)
        out = self.model.require("localizer")(vision, batch["image"], lesions)
        true = (batch["masks"], batch["mask_known"], lesion_labels(batch["labels"]))
        masks, known, labels = (of_lesions(each, lesions) for each in true)
        return localization_loss(out, masks, known, labels, self.localization)

    def _told(
        self, vision: Mapping[str, Tensor], batch: Batch, own: bool
    ) -> tuple[Mapping[str, Tensor], list[list[str]]]:
        """Features and evidence that the generator reads: what the model finds, or a share of the truth."""
        if own and torch.rand(()) < self.predicted_evidence:
            return self.model.told(vision, batch["image"], batch["regions"])
        lines = [
            [line for line in lines if torch.rand(()) >= self.drop_evidence] for lines in batch["evidence"]
        ]
        if self.model.load_generator().evidence != "embedding":
            return vision, lines
        seen = with_lesions(vision, true_masks(batch), self.model.geometry.patch)
        weights = seen["lesion_weights"]  # (B, K, N)
        kept = torch.rand(weights.shape[:2], device=weights.device) >= self.drop_evidence
        return {**seen, "lesion_weights": weights * kept[..., None]}, lines


def true_masks(batch: Batch) -> Tensor:
    """Lesion masks (B, K, D, H, W) of a batch, empty where nothing is known."""
    return (batch["masks"] > 0) * batch["mask_known"].bool()[:, :, None, None, None]
