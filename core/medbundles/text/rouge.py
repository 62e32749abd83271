"""ROUGE-L: the longest common subsequence of two reports, as an F-measure that favours recall."""

from collections.abc import Sequence
from statistics import fmean

from .pairs import Words, word_pairs

BETA = 1.2  # weight of recall over precision in the COCO toolkit


def rouge_l(hypotheses: Sequence[str], references: Sequence[str]) -> float:
    """Mean over the reports of ROUGE-L with beta 1.2 (Lin, ACL workshop 2004), a fraction.

    An empty hypothesis or reference scores 0.

    Raises:
        ValueError: unequal lengths or nothing to compare.
    """
    return fmean(_f_measure(*pair) for pair in word_pairs(hypotheses, references))


def _f_measure(hypothesis: Words, reference: Words) -> float:
    common = common_subsequence_length(hypothesis, reference)
    if common == 0:
        return 0.0
    precision, recall = common / len(hypothesis), common / len(reference)
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def common_subsequence_length(first: Words, second: Words) -> int:
    """Length of the longest common subsequence, by the bit-vector recurrence of Crochemore et al. (2001).

    One integer holds a whole row of the dynamic programme: its bit i is 0 where the row rises at word i of
    `second`, so a row costs three integer operations and the length is the number of zeros of the last one.
    """
    occurrences: dict[str, int] = {}
    for index, word in enumerate(second):
        occurrences[word] = occurrences.get(word, 0) | 1 << index
    row = ones = (1 << len(second)) - 1
    for word in first:
        matches = row & occurrences.get(word, 0)
        row = (row + matches) | (row - matches)
    return len(second) - (row & ones).bit_count()
