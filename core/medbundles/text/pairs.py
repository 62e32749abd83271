"""What every text metric starts from: the words of each (hypothesis, reference) pair and their n-grams."""

from collections import Counter
from collections.abc import Iterator, Sequence

Words = list[str]


def word_pairs(hypotheses: Sequence[str], references: Sequence[str]) -> list[tuple[Words, Words]]:
    """Whitespace tokens of every (hypothesis, reference) pair, in order.

    Raises:
        ValueError: a bare string in place of a sequence of reports, unequal lengths, or nothing to compare.
    """
    for name, reports in (("hypotheses", hypotheses), ("references", references)):
        if isinstance(reports, str):
            raise ValueError(
                f"{name} must be a sequence of reports, got one string of {len(reports)} letters"
            )
    if len(hypotheses) != len(references):
        raise ValueError(
            "every hypothesis needs its reference, "
            f"got {len(hypotheses)} hypotheses for {len(references)} references"
        )
    if not hypotheses:
        raise ValueError("text metrics need at least one (hypothesis, reference) pair, got none")
    return [
        (hypothesis.split(), reference.split())
        for hypothesis, reference in zip(hypotheses, references, strict=True)
    ]


def ngrams(words: Words, order: int) -> Iterator[tuple[str, ...]]:
    """The runs of `order` consecutive words, in order, with repeats."""
    return zip(*(words[start:] for start in range(order)), strict=False)


def ngram_counts(words: Words, order: int) -> Counter[tuple[str, ...]]:
    """How often every n-gram of one order occurs."""
    return Counter(ngrams(words, order))
