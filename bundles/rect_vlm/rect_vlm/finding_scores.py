"""How well probabilities tell findings apart, and decisions hit them; weights make bootstrap replicates.

N scans, K findings; weights (..., N), one pass gives all replicates. Unknown labels (-1) weigh nothing.
"""

from __future__ import annotations

import numpy as np
from medbundles.resampling import Floats
from numpy.typing import ArrayLike, NDArray

HALF = 0.5


def ranking_scores(probs: ArrayLike, labels: ArrayLike, weights: Floats | None = None) -> dict[str, Floats]:
    """`auroc` and average precision `ap` (..., K); NaN where the known labels hold one class only.

    Ties count half in AUROC, and together in average precision, as in scikit-learn.

    Raises:
        ValueError: shapes that do not fit.
    """
    p, y, w = _checked(probs, labels, weights)
    rows = [_ranked(p[:, k], y[:, k], w) for k in range(p.shape[1])]
    return {
        "auroc": np.stack([row[0] for row in rows], axis=-1),
        "ap": np.stack([row[1] for row in rows], axis=-1),
    }


def _ranked(scores: Floats, labels: Floats, weights: Floats) -> tuple[Floats, Floats]:
    known = labels >= 0
    scores, positive, weights = scores[known], labels[known], weights[..., known]
    if not len(scores):
        nothing = np.full(weights.shape[:-1], np.nan)
        return nothing, nothing
    order = np.argsort(-scores, kind="stable")
    ties = np.flatnonzero(np.diff(scores[order], prepend=np.inf))  # where a new score begins
    hits = np.add.reduceat((weights * positive)[..., order], ties, axis=-1)
    alarms = np.add.reduceat((weights * (1 - positive))[..., order], ties, axis=-1)
    positives, negatives = hits.sum(-1), alarms.sum(-1)
    below = negatives[..., None] - alarms.cumsum(-1) + alarms / 2
    found = hits.cumsum(-1)
    precision = _ratio(found, found + alarms.cumsum(-1), empty=0)
    both = np.where((positives > 0) & (negatives > 0), 1.0, np.nan)
    auroc = _ratio((hits * below).sum(-1), positives * negatives)
    return auroc, both * _ratio((hits * precision).sum(-1), positives)


def decision_scores(said: ArrayLike, labels: ArrayLike, weights: Floats | None = None) -> dict[str, Floats]:
    """`precision`, `recall`, `f1`, `f1_weighted`, `accuracy` (..., K) of decisions `said` (N, K).

    The first three are of being present: NaN for a finding that nobody has and nobody is said to have, and
    0/0 otherwise counts 0. `f1_weighted` is the mean of the F1 of being present and of being absent, weighted
    by how many scans are either, which CT-CLIP (arXiv 2403.17834) reports.

    Raises:
        ValueError: shapes that do not fit.
    """
    called, y, w = _checked(said, labels, weights)
    known, yes = y >= 0, called > 0
    hits, alarms = w @ (known & yes & (y > 0)), w @ (known & yes & (y == 0))
    misses, rejections = w @ (known & ~yes & (y > 0)), w @ (known & ~yes & (y == 0))
    seen = np.where(hits + alarms + misses > 0, 1.0, np.nan)
    present = _ratio(2 * hits, 2 * hits + alarms + misses, empty=0)
    absent = _ratio(2 * rejections, 2 * rejections + alarms + misses, empty=0)
    total = hits + alarms + misses + rejections
    return {
        "precision": seen * _ratio(hits, hits + alarms, empty=0),
        "recall": seen * _ratio(hits, hits + misses, empty=0),
        "f1": seen * present,
        "f1_weighted": _ratio((hits + misses) * present + (alarms + rejections) * absent, total),
        "accuracy": _ratio(hits + rejections, total),
    }


def best_thresholds(probs: ArrayLike, labels: ArrayLike) -> Floats:
    """For each finding (K,) the threshold above which being present has the highest F1; NaN for one class.

    It lies midway between two probabilities, which must be above 0; of equally good ones it is the highest.
    """
    p, y, _ = _checked(probs, labels, None)
    chosen = np.full(p.shape[1], np.nan)
    for k in range(p.shape[1]):
        known = y[:, k] >= 0
        values, inverse = np.unique(-p[known, k], return_inverse=True)  # from the highest down
        positive = y[known, k] > 0
        if not positive.any() or positive.all():
            continue
        hits = np.bincount(inverse, positive).cumsum()
        called = np.bincount(inverse).cumsum()
        best = int(np.argmax(2 * hits / (called + positive.sum())))
        floor = -values[best + 1] if best + 1 < len(values) else 0.0
        chosen[k] = (floor - values[best]) / 2
    return chosen


def finding_summary(
    probs: ArrayLike, labels: ArrayLike, thresholds: ArrayLike, weights: Floats | None = None
) -> dict[str, Floats]:
    """Means (...) over the findings for which a score is defined.

    `auroc_macro`, `ap_macro`, and of the decisions at 0.5 `f1_macro`, `f1_weighted`, `precision_macro`,
    `recall_macro`, `accuracy`; the same with `_tuned` at `thresholds` (K,).
    """
    ranked = ranking_scores(probs, labels, weights)
    summary = {f"{name}_macro": mean_defined(values) for name, values in ranked.items()}
    for suffix, limit in (("", HALF), ("_tuned", thresholds)):
        decided = decision_scores(np.asarray(probs) > np.asarray(limit), labels, weights)
        for name, values in decided.items():
            macro = "" if name in ("f1_weighted", "accuracy") else "_macro"
            summary[f"{name}{macro}{suffix}"] = mean_defined(values)
    return summary


def mean_defined(values: Floats) -> Floats:
    """Mean over the last axis of what is not NaN; NaN where nothing is."""
    known = ~np.isnan(values)
    return _ratio(np.where(known, values, 0).sum(-1), known.sum(-1))


def weighted_mean(values: Floats, weights: Floats) -> Floats:
    """Means (..., K) of values (N, K) under weights (..., N), NaN values left out."""
    known = ~np.isnan(values)
    return _ratio(weights @ np.where(known, values, 0), weights @ known)


def _ratio(numerator: ArrayLike, denominator: ArrayLike, empty: float = np.nan) -> Floats:
    top, bottom = np.asarray(numerator, dtype=np.float64), np.asarray(denominator, dtype=np.float64)
    return np.where(bottom > 0, top / np.where(bottom > 0, bottom, 1), empty)


def _checked(
    values: ArrayLike, labels: ArrayLike, weights: Floats | None
) -> tuple[Floats, NDArray[np.float64], Floats]:
    p, y = np.asarray(values, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    w = np.ones(len(p)) if weights is None else np.asarray(weights, dtype=np.float64)
    if p.ndim != 2 or p.shape != y.shape or w.shape[-1] != len(p):
        raise ValueError(
            f"values and labels must be (N, K) and weights (..., N), got {p.shape}, {y.shape} and {w.shape}"
        )
    return p, y, w
