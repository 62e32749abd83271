"""Logit adjustment by how readily each condition is found (arXiv 2007.07314, as used in arXiv 2308.12604)."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from medbundles.text.labeler import POSITIVE
from torch import Tensor, nn

SMALLEST = 1e-6  # a prior of 0 would make the loss of its first positive infinite


def adjust(class_logits: Tensor, log_prior: Tensor) -> Tensor:
    """Logits (B, 4, C) with log_prior (C,) added to the state positive, as a new tensor."""
    positive = torch.arange(class_logits.shape[1], device=class_logits.device) == POSITIVE
    return class_logits + positive.to(class_logits.dtype)[:, None] * log_prior.to(class_logits)


class ClassPrior(nn.Module):
    """One prior in (0, 1] per condition, relative to the easiest one; estimated anew after each epoch.

    A condition of which no positive was ever seen, labelled or not, has the prior 1: no adjustment.

    Args:
        conditions: C.
        start: priors (C,) to begin with, ones by default.

    Raises:
        ValueError: a start of another shape, or outside (0, 1].
    """

    prior: Tensor

    def __init__(self, conditions: int, start: Tensor | None = None) -> None:
        super().__init__()
        start = torch.ones(conditions) if start is None else start
        if start.shape != (conditions,) or not bool(((start > 0) & (start <= 1)).all()):
            raise ValueError(f"start must be {conditions} priors in (0, 1], got {start.tolist()}")
        self.register_buffer("prior", start.float().clamp_min(SMALLEST))

    @classmethod
    def from_labels(cls, labels: Tensor) -> "ClassPrior":
        """Priors from the training labels (n, C): frequency of positives, divided by the largest."""
        prior = cls(labels.shape[1])
        prior._replace((labels == POSITIVE).double().mean(dim=0), (labels == POSITIVE).any(dim=0))
        return prior

    @property
    def log_prior(self) -> Tensor:
        """Logarithm (C,) of the priors, at most 0 and always finite."""
        return self.prior.log()

    def adjusted(self, class_logits: Tensor) -> Tensor:
        """Logits (B, 4, C) as the training loss sees them; the input stays as it is."""
        return adjust(class_logits, self.log_prior)

    @torch.no_grad()
    def update(self, class_logits: Tensor, labels: Tensor) -> None:
        """Mean probability of positive over the validation positives, divided by the largest.

        Args:
            class_logits: unadjusted (n, 4, C).
            labels: (n, C); a condition without positives keeps its prior.

        Raises:
            ValueError: shapes that do not belong together, or logits that are not finite.
        """
        if labels.shape != (len(class_logits), len(self.prior)):
            raise ValueError(
                f"labels must be (n, C) = {(len(class_logits), len(self.prior))}, got {tuple(labels.shape)}"
            )
        if not bool(class_logits.isfinite().all()):
            raise ValueError("class_logits must be finite, got NaN or infinity from the validation cases")
        positive = labels == POSITIVE
        found = class_logits.double().softmax(dim=1)[:, POSITIVE]  # (n, C)
        mean = (found * positive).sum(dim=0) / positive.sum(dim=0).clamp_min(1)
        self._replace(mean, positive.any(dim=0))

    def _replace(self, frequency: Tensor, seen: Tensor) -> None:
        if bool(seen.any()):
            frequency = frequency.clamp_min(torch.finfo(frequency.dtype).tiny)  # 0 / 0 would be NaN
            relative = (frequency / frequency[seen].max()).clamp_min(SMALLEST).to(self.prior)
            self.prior.copy_(torch.where(seen.to(self.prior.device), relative, self.prior))


def from_records(records: Mapping[str, Sequence[Mapping[str, Any]]]) -> ClassPrior:
    """The prior to begin with, from the labels of the training records.

    Raises:
        ValueError: no training record.
    """
    if not records["train"]:
        raise ValueError("the class prior needs training records, got none")
    return ClassPrior.from_labels(torch.tensor([record["labels"] for record in records["train"]]))
