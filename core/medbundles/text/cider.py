"""CIDEr-D: agreement in tf-idf weighted n-grams: stock sentences count little, rare findings much."""

import math
from collections import Counter
from collections.abc import Sequence
from statistics import fmean

from .pairs import Words, ngram_counts, word_pairs

ORDERS = (1, 2, 3, 4)
SIGMA = 6.0  # words; width of the penalty on a difference in length
SCALE = 10.0

Ngram = tuple[str, ...]
Counts = list[Counter[Ngram]]  # one per order


def cider_d(hypotheses: Sequence[str], references: Sequence[str]) -> float:
    """Mean CIDEr-D of the reports (Vedantam et al., CVPR 2015), on its own scale of 0 to 10.

    Document frequencies come from the references themselves, hence the value depends on the whole set: a
    score of one report alone is always 0, and subsets do not average to the score of the set.

    Raises:
        ValueError: unequal lengths or nothing to compare.
    """
    pairs = word_pairs(hypotheses, references)
    counts = [(_counts(hypothesis), _counts(reference)) for hypothesis, reference in pairs]
    frequency = Counter(ngram for _, reference in counts for order in reference for ngram in order)
    return SCALE * fmean(
        _length_penalty(len(words[0]), len(words[1]))
        * _similarity(hypothesis, reference, frequency, len(pairs))
        for words, (hypothesis, reference) in zip(pairs, counts, strict=True)
    )


def _counts(words: Words) -> Counts:
    return [ngram_counts(words, order) for order in ORDERS]


def _length_penalty(hypothesis: int, reference: int) -> float:
    return math.exp(-((hypothesis - reference) ** 2) / (2 * SIGMA**2))


def _similarity(hypothesis: Counts, reference: Counts, frequency: Counter[Ngram], documents: int) -> float:
    """Mean over the orders of the cosine of the tf-idf vectors, the hypothesis clipped to the reference."""
    cosines = []
    for said, true in zip(hypothesis, reference, strict=True):
        said_weights, true_weights = (_tf_idf(counts, frequency, documents) for counts in (said, true))
        clipped = sum(
            min(weight, true_weights[ngram]) * true_weights[ngram]
            for ngram, weight in said_weights.items()
            if ngram in true_weights
        )
        norms = math.hypot(*said_weights.values()) * math.hypot(*true_weights.values())
        cosines.append(clipped / norms if norms else 0.0)
    return fmean(cosines)


def _tf_idf(counts: Counter[Ngram], frequency: Counter[Ngram], documents: int) -> dict[Ngram, float]:
    return {ngram: n * math.log(documents / max(1, frequency[ngram])) for ngram, n in counts.items()}
