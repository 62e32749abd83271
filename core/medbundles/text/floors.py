"""What a report generator must beat: hypotheses made from the training reports without looking at an image.

On real chest X-ray sets a constant report reaches the BLEU and ROUGE-L of published models, because most
reports are normal and alike; a score means little without these floors beside it. Nothing here ever sees a
test report.
"""

import random
from collections import Counter
from collections.abc import Sequence

from .nlg import bleu


def most_common_report(train: Sequence[str], n: int) -> list[str]:
    """The commonest training report, `n` times; of equally common ones the first.

    Raises:
        ValueError: no training reports or n below 1.
    """
    return _commonest(train, n, candidates=1) * n


def random_reports(train: Sequence[str], n: int, seed: int) -> list[str]:
    """`n` training reports drawn with replacement, the same for the same seed.

    Raises:
        ValueError: no training reports or n below 1.
    """
    _check(train, n)
    return random.Random(seed).choices(train, k=n)


def constant_report(
    train: Sequence[str], validation: Sequence[str], n: int, candidates: int = 40
) -> list[str]:
    """The one report that fits everybody best, `n` times.

    Of the `candidates` commonest training reports it is the one with the highest BLEU-4 on the validation
    reports; the commoner wins a tie.

    Raises:
        ValueError: no training or validation reports, n or candidates below 1.
    """
    if candidates < 1:
        raise ValueError(f"candidates must be at least 1, got {candidates=}")
    commonest = _commonest(train, n, candidates)
    best = max(commonest, key=lambda report: bleu([report] * len(validation), validation)["bleu4"])
    return [best] * n


def _commonest(train: Sequence[str], n: int, candidates: int) -> list[str]:
    _check(train, n)
    return [report for report, _ in Counter(train).most_common(candidates)]


def _check(train: Sequence[str], n: int) -> None:
    if not train:
        raise ValueError("a floor is made from training reports, got none")
    if n < 1:
        raise ValueError(f"a floor needs n reports, n at least 1, got {n=}")
