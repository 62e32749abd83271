"""Rewards of generated reports for policy optimisation, every one in 0..1. B reports."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import torch
from medbundles.text.pairs import ngram_counts
from medbundles.text.rouge import rouge_l
from torch import Tensor

from rect_vlm.report_facts import Fact, fact_f1, facts
from rect_vlm.report_labeler import ReportLabeler, label_reports
from rect_vlm.report_scores import clean_text

WEIGHTS: dict[str, float] = {"clinical": 0.4, "factual": 0.3, "fluency": 0.2, "format": 0.1}
_SECTIONS = re.compile(r"\s*FINDINGS:\s*(?P<findings>.*?)\s*IMPRESSION:\s*(?P<impression>.*?)\s*", re.DOTALL)


class Reward(Protocol):
    """Rewards (B,) of B reports by name, one of them "total"; RewardModel is one."""

    def __call__(
        self,
        texts: Sequence[str],
        references: Sequence[str],
        log_probs: Tensor,
        ended: Tensor,
        labels: Tensor | None = None,
    ) -> dict[str, Tensor]: ...


class RewardModel:
    """Weighted sum of four rewards of a report against its reference.

    clinical is half the F1 of the labels (1 where both have none), half ROUGE-L; factual the F1 of facts;
    fluency exp(mean log-probability under the reference policy), less the share of repeated 4-grams (alone
    that share rewards short reports); format 1 where the report is FINDINGS and IMPRESSION in this order,
    both with text, and has ended.

    Args:
        weights: of the components; a component that is not named does not count.
        labeler: labels of a text.
        extract: facts of a text.

    Raises:
        ValueError: an unknown component, a negative weight or none above 0.
    """

    def __init__(
        self,
        weights: Mapping[str, float] | None = None,
        labeler: ReportLabeler = label_reports,
        extract: Callable[[str], set[Fact]] = facts,
    ) -> None:
        self.weights = dict(WEIGHTS if weights is None else weights)
        if unknown := sorted(set(self.weights) - set(WEIGHTS)):
            raise ValueError(f"rewards are {', '.join(WEIGHTS)}, got weights for {', '.join(unknown)}")
        if min(self.weights.values(), default=0) < 0 or not any(self.weights.values()):
            raise ValueError(f"weights must be at least 0 and one above, got {self.weights}")
        self.labeler, self.extract = labeler, extract

    def __call__(
        self,
        texts: Sequence[str],
        references: Sequence[str],
        log_probs: Tensor,
        ended: Tensor,
        labels: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Rewards (B,) of every component, and "total", their weighted sum.

        Args:
            texts, references: B reports each.
            log_probs: mean log-probability of a token of each report under the reference policy (B,).
            ended: whether each report reached its end (B,) bool.
            labels: true labels (B, 18), -1 = unknown; without them those of the reference.

        Raises:
            ValueError: lengths that differ.
        """
        sizes = {len(texts), len(references), len(log_probs), len(ended)}
        if len(sizes) > 1:
            raise ValueError(
                "a reward needs one reference, log-probability and end per report, got "
                f"{len(texts)} texts, {len(references)} references, {len(log_probs)} and {len(ended)}"
            )
        pairs = list(zip(texts, references, strict=True))
        repeated = torch.tensor([_repeated(text) for text in texts], dtype=torch.float32)
        rewards = {
            "clinical": 0.5 * self._label_f1(texts, references, labels) + 0.5 * _rouge(pairs),
            "factual": torch.tensor([fact_f1(self.extract(text), self.extract(ref)) for text, ref in pairs]),
            "fluency": log_probs.detach().float().cpu().exp() * (1 - repeated),
            "format": torch.tensor([_formatted(text) for text in texts]).float() * ended.cpu().float(),
        }
        total = torch.stack([weight * rewards[name] for name, weight in self.weights.items()]).sum(0)
        return {**rewards, "total": total}

    def _label_f1(self, texts: Sequence[str], references: Sequence[str], labels: Tensor | None) -> Tensor:
        said, wanted = (torch.from_numpy(self.labeler(list(part))) for part in (texts, references))
        if labels is not None:
            known = labels.cpu()
            wanted = torch.where(known < 0, wanted, known.long())
        both, either = (said * wanted).sum(1), said.sum(1) + wanted.sum(1)
        return torch.where(either == 0, 1.0, 2 * both / either.clamp(min=1))


def reward_log(rewards: Sequence[dict[str, Tensor]], group: int) -> dict[str, float]:
    """Means of every component, and of the total its mean spread in a group and the share of flat groups."""
    log = {
        f"reward_{name}": torch.cat([part[name] for part in rewards]).float().mean().item()
        for name in rewards[0]
        if name != "total"
    }
    total = torch.cat([part["total"] for part in rewards]).float().view(-1, group)
    return {
        "reward": total.mean().item(),
        **log,
        "reward_spread": total.std(1).mean().item(),
        "flat_groups": (total.amax(1) == total.amin(1)).float().mean().item(),
    }


def _rouge(pairs: Sequence[tuple[str, str]]) -> Tensor:
    cleaned = [(clean_text(text), clean_text(reference)) for text, reference in pairs]
    return torch.tensor([rouge_l([text], [reference]) for text, reference in cleaned], dtype=torch.float32)


def _repeated(text: str) -> float:
    """Share of the 4-grams of a text that were there before."""
    counts = ngram_counts(text.lower().split(), 4)
    total = sum(counts.values())
    return 1 - len(counts) / total if total else 0.0


def _formatted(text: str) -> bool:
    sections = _SECTIONS.fullmatch(text)
    return bool(sections and sections["findings"] and sections["impression"])
