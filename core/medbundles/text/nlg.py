"""Text metrics of generated reports against their references, computed offline.

All of them split at whitespace and nothing else: hypotheses and references must have gone through the same
cleaning (`medbundles.text.cleaning`), or the numbers measure the difference in punctuation.
"""

from collections.abc import Sequence
from statistics import fmean, pstdev

from . import require_text_extra
from .cider import cider_d
from .meteor import meteor
from .pairs import ngrams, word_pairs
from .rouge import rouge_l

__all__ = ["bleu", "cider_d", "distinct", "meteor", "report_metrics", "rouge_l"]


def bleu(hypotheses: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """BLEU-1 to BLEU-4 of the corpus without smoothing (Papineni et al., ACL 2002), as fractions.

    Counts are summed over the reports before the precisions are taken. An order without a single match makes
    its BLEU and those above it 0, where the constants of the COCO toolkit leave a small remainder.

    Returns:
        `bleu1`, `bleu2`, `bleu3`, `bleu4`.

    Raises:
        ValueError: unequal lengths or nothing to compare.
        ImportError: the extra `text` is not installed.
    """
    word_pairs(hypotheses, references)
    require_text_extra()
    from sacrebleu import BLEU

    scorer = BLEU(tokenize="none", smooth_method="none", force=True)
    found = scorer.corpus_score(list(hypotheses), [list(references)])
    return {
        f"bleu{order}": BLEU.compute_bleu(
            found.counts[:order],
            found.totals[:order],
            found.sys_len,
            found.ref_len,
            smooth_method="none",
            max_ngram_order=order,
        ).score
        / 100
        for order in (1, 2, 3, 4)
    }


def distinct(hypotheses: Sequence[str], n: int) -> float:
    """Different n-grams over all n-grams of the hypotheses (Li et al., NAACL 2016); 0 where there are none.

    Raises:
        ValueError: n below 1.
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n=}")
    found = [ngram for hypothesis in hypotheses for ngram in ngrams(hypothesis.split(), n)]
    return len(set(found)) / len(found) if found else 0.0


def report_metrics(
    hypotheses: Sequence[str], references: Sequence[str], java: bool = True
) -> dict[str, float]:
    """Every text metric of a set of reports, and how long and how varied the hypotheses are.

    Args:
        hypotheses, references: N texts each.
        java: METEOR by the Java program where it is installed; False takes the lite form everywhere.

    Returns:
        bleu1 to bleu4, rouge_l, meteor or meteor_lite, distinct1, distinct2 and unique_reports (different
        hypotheses over all) as fractions; cider_d on its scale of 0 to 10; words_mean and words_sd (over this
        set, not a sample's estimate) in words of the hypotheses.

    Raises:
        ValueError: unequal lengths or nothing to compare.
        ImportError: the extra `text` is not installed.
    """
    said = [hypothesis for hypothesis, _ in word_pairs(hypotheses, references)]
    lengths = [len(words) for words in said]
    return {
        **bleu(hypotheses, references),
        "rouge_l": rouge_l(hypotheses, references),
        "cider_d": cider_d(hypotheses, references),
        **meteor(hypotheses, references, java),
        "words_mean": fmean(lengths),
        "words_sd": pstdev(lengths),
        "distinct1": distinct(hypotheses, 1),
        "distinct2": distinct(hypotheses, 2),
        "unique_reports": len(set(map(tuple, said))) / len(said),
    }
