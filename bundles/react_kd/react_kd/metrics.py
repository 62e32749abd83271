"""How good a grading is: discrimination, classification, calibration and net benefit, with intervals.

Every metric takes optional case weights (..., N) and returns its value with those leading axes, so that one
implementation gives both the value (no weights) and all bootstrap replicates (weights (R,N)) at once.
N cases, K classes, T thresholds, R replicates.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from medbundles.resampling import Floats, bootstrap_weights, percentile_interval
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "brier_score", "calibration_error", "classification_scores", "confusion_matrix", "evaluate",
    "net_benefit", "reliability_bins", "roc_auc", "value_and_interval",
]  # fmt: skip

N_BINS = 15
THRESHOLDS = np.arange(1, 100) / 100


def roc_auc(probs: ArrayLike, labels: ArrayLike, weights: Floats | None = None) -> dict[str, Any]:
    """One-vs-rest area under the ROC curve: `per_class` (...,K), their mean `macro`, and pooled `micro`.

    A class without positive or without negative cases has no AUC: its value and the macro are nan, with a
    RuntimeWarning when no weights are given.
    """
    p, y, w = _checked(probs, labels, weights)
    per_class = np.stack([_rank_auc(p[:, k], y[:, k], w) for k in range(p.shape[1])], axis=-1)
    micro = _rank_auc(p.ravel(), y.ravel(), np.repeat(w, p.shape[1], axis=-1))
    if weights is None and np.isnan(per_class).any():
        undefined = np.flatnonzero(np.isnan(per_class)).tolist()
        counts = y.sum(axis=0).astype(int).tolist()
        warnings.warn(
            f"AUC is undefined for class {undefined}: cases per class {counts}", RuntimeWarning, stacklevel=2
        )
    return {"per_class": per_class, "macro": per_class.mean(axis=-1), "micro": micro}


def _rank_auc(scores: Floats, positive: Floats, weights: Floats) -> Floats:
    """Weighted Mann-Whitney statistic with half credit for ties, (M,), (M,), (...,M) -> (...)."""
    order = np.argsort(scores, kind="stable")
    tie_starts = np.flatnonzero(np.diff(scores[order], prepend=-np.inf))
    positives = np.add.reduceat((weights * positive)[..., order], tie_starts, axis=-1)
    negatives = np.add.reduceat((weights * (1 - positive))[..., order], tie_starts, axis=-1)
    below = np.cumsum(negatives, axis=-1) - negatives / 2
    return _ratio((positives * below).sum(-1), positives.sum(-1) * negatives.sum(-1))


def confusion_matrix(probs: ArrayLike, labels: ArrayLike, weights: Floats | None = None) -> Floats:
    """Weight of the cases by true class (row) and most probable class (column), (...,K,K)."""
    p, y, w = _checked(probs, labels, weights)
    predicted = np.eye(p.shape[1])[p.argmax(axis=1)]
    cells = (y[:, :, None] * predicted[:, None, :]).reshape(len(p), -1)
    return (w @ cells).reshape(*w.shape[:-1], p.shape[1], p.shape[1])


def classification_scores(confusion: Floats) -> dict[str, Floats]:
    """Accuracy and macro precision, recall and F1 (...) of confusion matrices (...,K,K).

    As in scikit-learn: a class neither present nor predicted is left out of the means, and a precision or
    recall of 0/0 counts as 0.
    """
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    truth, predicted = confusion.sum(axis=-1), confusion.sum(axis=-2)
    seen = (truth + predicted) > 0

    def macro(numerator: Floats, denominator: Floats) -> Floats:
        return np.where(seen, numerator / np.maximum(denominator, 1e-300), 0).sum(axis=-1) / seen.sum(axis=-1)

    return {
        "accuracy": hits.sum(axis=-1) / truth.sum(axis=-1),
        "precision": macro(hits, predicted),
        "recall": macro(hits, truth),
        "f1": macro(2 * hits, truth + predicted),
    }


def brier_score(probs: ArrayLike, labels: ArrayLike, weights: Floats | None = None) -> Floats:
    """Mean squared distance of the probabilities from the one-hot label, 0 to 2 (Brier 1950), (...)."""
    p, y, w = _checked(probs, labels, weights)
    return w @ ((p - y) ** 2).sum(axis=1) / w.sum(axis=-1)


def calibration_error(
    probs: ArrayLike, labels: ArrayLike, weights: Floats | None = None, n_bins: int = N_BINS
) -> Floats:
    """Expected calibration error of the top class over equal bins (Guo et al., ICML 2017), (...)."""
    p, y, w = _checked(probs, labels, weights)
    in_bin, confidence, correct = _binned(p, y, n_bins)
    return np.abs(w @ (in_bin * (correct - confidence)[:, None])).sum(axis=-1) / w.sum(axis=-1)


def reliability_bins(probs: ArrayLike, labels: ArrayLike, n_bins: int = N_BINS) -> dict[str, Floats]:
    """Cases, mean confidence and accuracy per confidence bin (n_bins,), nan in an empty bin."""
    p, y, _ = _checked(probs, labels, None)
    in_bin, confidence, correct = _binned(p, y, n_bins)
    count = in_bin.sum(axis=0)
    return {
        "count": count,
        "confidence": _ratio(confidence @ in_bin, count),
        "accuracy": _ratio(correct @ in_bin, count),
    }


def _binned(p: Floats, y: Floats, n_bins: int) -> tuple[Floats, Floats, Floats]:
    """Bin membership (N,n_bins) with bins open at the left, confidence (N,), correctness (N,)."""
    confidence = p.max(axis=1)
    edges = np.linspace(0, 1, n_bins + 1)
    in_bin = np.eye(n_bins)[np.clip(np.searchsorted(edges[1:], confidence), 0, n_bins - 1)]
    return in_bin, confidence, y[np.arange(len(p)), p.argmax(axis=1)]


def net_benefit(
    probs: ArrayLike, labels: ArrayLike, thresholds: Floats = THRESHOLDS, weights: Floats | None = None
) -> dict[str, Floats]:
    """Decision curves (Vickers and Elkin 2006), one class against the rest, positive where p >= threshold.

    `per_class` (...,K,T) is TP/N - FP/N * t/(1-t) and `macro` (...,T) its mean; `all_per_class` and
    `all_macro` are the same for calling every case positive. Calling none positive has net benefit 0.
    """
    p, y, w = _checked(probs, labels, weights)
    odds = thresholds / (1 - thresholds)
    gain = y[:, :, None] - (1 - y)[:, :, None] * odds  # (N,K,T) of a positive call
    called = gain * (p[:, :, None] >= thresholds)
    shape = (*w.shape[:-1], *gain.shape[1:])
    total = w.sum(axis=-1)[..., None, None]
    per_class = (w @ called.reshape(len(p), -1)).reshape(shape) / total
    treat_all = (w @ gain.reshape(len(p), -1)).reshape(shape) / total
    return {
        "per_class": per_class,
        "macro": per_class.mean(axis=-2),
        "all_per_class": treat_all,
        "all_macro": treat_all.mean(axis=-2),
    }


def evaluate(
    probs: ArrayLike,
    labels: ArrayLike,
    classes: Sequence[str],
    patients: Sequence[str],
    n_bootstrap: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> dict[str, Any]:
    """Every metric of N graded cases with its patient bootstrap interval, as plain lists and floats.

    `probs` (N,K), `labels` (N,) in 0..K-1, `patients` (N,). `metrics` maps a name (`auc_macro`, `auc_micro`,
    `auc_<class>`, `accuracy`, `precision`, `recall`, `f1`, `brier`, `ece`) to `value`, `low` and `high`. A
    replicate that lost a class has no macro AUC and is left out of that interval.

    Raises:
        ValueError: shapes disagree, there is no case, a probability is not finite or does not sum to 1, or a
            label lies outside the classes.
    """
    p, y, _ = _checked(probs, labels, None)
    if not len(classes) == p.shape[1] or not len(patients) == len(p):
        raise ValueError(
            f"probs must have one row per patient id and one column per class, got {p.shape} "
            f"for {len(patients)} patient ids and {len(classes)} classes"
        )
    values = _scores(probs, labels, classes, None)
    draws = bootstrap_weights(patients, n_bootstrap, seed)
    replicates = _scores(probs, labels, classes, draws)
    metrics = {}
    for name, value in values.items():
        low, high = percentile_interval(replicates[name], confidence)
        metrics[name] = {"value": float(value), "low": float(low), "high": float(high)}
    curve = net_benefit(probs, labels)
    low, high = percentile_interval(net_benefit(probs, labels, weights=draws)["macro"], confidence)
    return {
        "n_cases": len(p),
        "n_patients": len(set(patients)),
        "classes": list(classes),
        "support": dict(zip(classes, y.sum(axis=0).astype(int).tolist(), strict=True)),
        "metrics": metrics,
        "confusion": confusion_matrix(probs, labels).astype(int).tolist(),
        "reliability": {k: v.tolist() for k, v in reliability_bins(probs, labels).items()},
        "decision_curve": {"thresholds": THRESHOLDS.tolist(), **{k: v.tolist() for k, v in curve.items()}}
        | {"macro_low": low.tolist(), "macro_high": high.tolist()},
        "bootstrap": {"replicates": n_bootstrap, "seed": seed, "confidence": confidence},
    }


def value_and_interval(evaluation: Mapping[str, Any], metric: str) -> tuple[float, float, float]:
    """Value, low and high of one metric of `evaluate`, also if it was read back from JSON (null is nan)."""
    entry = evaluation["metrics"][metric]
    value, low, high = (math.nan if entry[key] is None else entry[key] for key in ("value", "low", "high"))
    return value, low, high


def _scores(
    probs: ArrayLike, labels: ArrayLike, classes: Sequence[str], weights: Floats | None
) -> dict[str, Floats]:
    auc = roc_auc(probs, labels, weights)
    return {
        "auc_macro": auc["macro"],
        "auc_micro": auc["micro"],
        **{f"auc_{name}": auc["per_class"][..., k] for k, name in enumerate(classes)},
        **classification_scores(confusion_matrix(probs, labels, weights)),
        "brier": brier_score(probs, labels, weights),
        "ece": calibration_error(probs, labels, weights),
    }


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Quotient, nan where the denominator is 0."""
    return np.divide(
        numerator, denominator, out=np.full(np.shape(numerator), np.nan), where=np.asarray(denominator) > 0
    )


def _checked(probs: ArrayLike, labels: ArrayLike, weights: Floats | None) -> tuple[Floats, Floats, Floats]:
    """Probabilities (N,K), one-hot labels (N,K) and weights (...,N) in float64."""
    p = np.asarray(probs, dtype=np.float64)
    y: NDArray = np.asarray(labels)
    if p.ndim != 2 or y.shape != p.shape[:1] or not len(p):
        raise ValueError(f"probs must be (N,K) and labels (N,) with N > 0, got {p.shape} and {y.shape}")
    if not np.isfinite(p).all() or not np.allclose(p.sum(axis=1), 1, atol=1e-3):
        bad = int(np.argmax(~(np.abs(p.sum(axis=1) - 1) < 1e-3)))
        raise ValueError(f"probs must be finite and sum to 1 in each row, got {p[bad].tolist()} in row {bad}")
    outside = np.unique(y[(y < 0) | (y >= p.shape[1])])
    if len(outside):
        raise ValueError(
            f"labels must lie in 0..{p.shape[1] - 1}, got {outside.tolist()} (leave ungraded cases out)"
        )
    return p, np.eye(p.shape[1])[y.astype(int)], np.ones(len(p)) if weights is None else weights
