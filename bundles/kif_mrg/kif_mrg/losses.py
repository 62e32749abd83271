"""Losses of KIF-ISD: report, diagnosis, and self-distillation of both (doi 10.3390/app152010974).

said: what the student says, ``logits`` (B, T, V), ``class_logits`` (B, 4, C), ``patches`` and ``graph``
(B, N, Dv). taught: the same of the frozen teacher, forced on the same tokens.
batch: ``tokens`` (B, T), the ids that ``logits`` predict, padded; ``labels`` (B, C), IGNORE where unlabelled.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch.nn.functional as F
from medbundles.distillation import full_precision, kd_kl, relation_rows
from torch import Tensor, nn

from .conditions import IGNORE, STATES
from .prior import adjust

if TYPE_CHECKING:
    from .text import ReportTokenizer

Tensors = Mapping[str, Tensor]
BLOCKS = {"patch": "patches", "graph": "graph"}
RELATION_MODES = ("separate", "joint")


@full_precision
def class_loss(class_logits: Tensor, labels: Tensor, log_prior: Tensor) -> Tensor:
    """Cross-entropy over the states, of logits (B, 4, C) adjusted by log_prior (C,), mean over the labelled.

    Raises:
        ValueError: labels that are neither a state nor IGNORE.
    """
    known = labels != IGNORE
    if bool((known & ((labels < 0) | (labels >= len(STATES)))).any()):
        raise ValueError(f"labels must be in 0 ... {len(STATES) - 1} or {IGNORE}, got {labels.tolist()}")
    total = F.cross_entropy(adjust(class_logits, log_prior), labels, ignore_index=IGNORE, reduction="sum")
    return total / known.sum().clamp_min(1)


@full_precision
def language_loss(logits: Tensor, tokens: Tensor, pad_id: int, label_smoothing: float = 0.1) -> Tensor:
    """Cross-entropy of logits (B, T, V) against tokens (B, T), mean over the tokens that are no padding."""
    total = F.cross_entropy(
        logits.flatten(0, 1),
        tokens.flatten(),
        ignore_index=pad_id,
        label_smoothing=label_smoothing,
        reduction="sum",
    )
    return total / (tokens != pad_id).sum().clamp_min(1)


def sequence_kd(student: Tensor, teacher: Tensor, mask: Tensor, temperature: float = 4.0) -> Tensor:
    """``T^2 / B`` times the sum over mask (B, T) of KL(teacher || student) of softened logits (B, T, V).

    As in EKAGen (CVPR 2024), but padding does not count, so that it cannot make the loss grow.
    """
    per_token = kd_kl(student.flatten(0, 1), teacher.flatten(0, 1), temperature, mask.flatten())
    return per_token * mask.sum() / mask.shape[0]


def relation(student: Tensors, teacher: Tensors, mode: str = "separate", on: str = "patch") -> Tensor:
    """Difference of the relations among the samples of a batch, seen in the features and in the diagnoses.

    Args:
        student: said, see above.
        teacher: taught, see above.
        mode: "separate", the mean of both relation losses, or "joint", one normalisation of both as in the
            authors' code, where features swamp diagnoses.
        on: which features, "patch" or "graph".
    """
    name = BLOCKS[on]
    features = student[name], teacher[name]
    diagnoses = student["class_logits"], teacher["class_logits"]
    if mode == "joint":
        return relation_rows(*features, *diagnoses)
    return (relation_rows(*features) + relation_rows(*diagnoses)) / 2


class IsdLoss(nn.Module):
    """``L_lm + w_c L_cls``, and with a teacher ``+ w_s L_seq + w_r L_rel``.

    Args:
        pad_id: token that fills short reports.
        class_weight: w_c.
        sequence_weight: w_s.
        relation_weight: w_r; 16 makes the mean over rows what the authors sum over a batch of 16.
        temperature: of L_seq.
        rel_norm: "separate" or "joint", see `relation`.
        rel_on: "patch" or "graph", see `relation`.

    Raises:
        ValueError: unknown rel_norm or rel_on.
    """

    def __init__(
        self,
        pad_id: int,
        class_weight: float = 4.0,
        sequence_weight: float = 0.01,
        relation_weight: float = 16.0,
        temperature: float = 4.0,
        rel_norm: str = "separate",
        rel_on: str = "patch",
    ) -> None:
        super().__init__()
        if rel_norm not in RELATION_MODES:
            raise ValueError(f"rel_norm must be one of {RELATION_MODES}, got {rel_norm=}")
        if rel_on not in BLOCKS:
            raise ValueError(f"rel_on must be one of {tuple(BLOCKS)}, got {rel_on=}")
        self.pad_id, self.class_weight, self.temperature = pad_id, class_weight, temperature
        self.sequence_weight, self.relation_weight = sequence_weight, relation_weight
        self.rel_norm, self.rel_on = rel_norm, rel_on

    def forward(
        self, said: Tensors, taught: Tensors | None, batch: Tensors, log_prior: Tensor
    ) -> dict[str, Tensor]:
        """Weighted terms ``lm`` and ``cls``, with a teacher ``seq`` and ``rel`` too: the loss sums them."""
        tokens = batch["tokens"]
        terms = {
            "lm": language_loss(said["logits"], tokens, self.pad_id),
            "cls": self.class_weight * class_loss(said["class_logits"], batch["labels"], log_prior),
        }
        if taught is not None:
            mask = tokens != self.pad_id
            sequence = sequence_kd(said["logits"], taught["logits"], mask, self.temperature)
            terms["seq"] = self.sequence_weight * sequence
            terms["rel"] = self.relation_weight * relation(said, taught, self.rel_norm, self.rel_on)
        return terms


def make_loss(tokenizer: ReportTokenizer, weights: Mapping[str, Any]) -> IsdLoss:
    """The loss for the tokens of `tokenizer`, with `weights` as the other arguments of IsdLoss."""
    return IsdLoss(tokenizer.pad_id, **weights)
