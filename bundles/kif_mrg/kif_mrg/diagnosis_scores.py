"""How good the diagnosis head is, with intervals over studies. N records, C conditions, R replicates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from medbundles.resampling import Floats
from numpy.typing import ArrayLike, NDArray

from kif_mrg.conditions import IGNORE, STATES
from kif_mrg.scored import Scored

Labels = NDArray[np.int64]  # (N, C) in CheXbert coding, IGNORE where unknown


def score_diagnosis(probs: ArrayLike, labels: ArrayLike, positive: Sequence[int], weights: Floats) -> Scored:
    """Accuracy over all known labels, and macro F1 and AUC of being positive, with replicates.

    The macro means run over the conditions that are positive at least once; of these the AUC leaves out those
    that always are.

    Args:
        probs: (N, 4, C).
        labels: (N, C), IGNORE where unknown.
        positive: the states that count as positive.
        weights: (R, N), how often each record is drawn.
    """
    p, y = np.asarray(probs, dtype=float), np.asarray(labels)
    once = np.ones((1, len(y)))
    counted = np.isin(y, positive).any(axis=0)

    def metrics(w: Floats) -> dict[str, Floats]:
        by_condition = condition_scores(p, y, positive, w)
        known = (w @ (y != IGNORE)).sum(axis=1)
        right = (w @ ((p.argmax(axis=1) == y) & (y != IGNORE))).sum(axis=1)
        return {
            "accuracy": _ratio(right, known),
            "f1_macro": _mean(by_condition["f1"][:, counted]),
            "auc_macro": _mean(by_condition["auc"][:, counted]),
        }

    values = {name: float(value[0]) for name, value in metrics(once).items()}
    return Scored(values, metrics(weights))


def condition_scores(
    probs: ArrayLike, labels: ArrayLike, positive: Sequence[int], weights: Floats | None = None
) -> dict[str, Floats]:
    """`accuracy` of the state, `f1` and `auc` of being positive, each (R, C) over the known labels.

    nan where it is not defined: without a label; F1 with nothing positive on either side; AUC with one side
    empty. R is 1 without weights.
    """
    p, y = np.asarray(probs, dtype=float), np.asarray(labels)
    w = np.ones((1, len(y))) if weights is None else weights
    states, known = p.argmax(axis=1), y != IGNORE
    said, true = np.isin(states, positive) & known, np.isin(y, positive)
    chance = p[:, list(positive)].sum(axis=1)
    auc = [
        weighted_auc(chance[known[:, c], c], true[known[:, c], c], w[:, known[:, c]])
        for c in range(y.shape[1])
    ]
    return {
        "accuracy": _ratio(w @ ((states == y) & known), w @ known),
        "f1": _ratio(2 * (w @ (said & true)), w @ said.astype(float) + w @ true.astype(float)),
        "auc": np.stack(auc, axis=1),
    }


def weighted_auc(scores: Floats, positive: NDArray[np.bool_], weights: Floats) -> Floats:
    """Area under the ROC curve (R,) of `scores` (M,) with weights (R, M): Mann-Whitney, ties count half."""
    order = np.argsort(scores, kind="stable")
    if not len(order):
        return np.full(len(weights), np.nan)
    ties = np.flatnonzero(np.diff(scores[order], prepend=-np.inf))  # where each run of equal scores begins
    positives = np.add.reduceat((weights * positive)[:, order], ties, axis=1)
    negatives = np.add.reduceat((weights * ~positive)[:, order], ties, axis=1)
    below = np.cumsum(negatives, axis=1) - negatives / 2
    return _ratio((positives * below).sum(axis=1), positives.sum(axis=1) * negatives.sum(axis=1))


def common_states(labels: ArrayLike) -> Floats:
    """Share (4, C) of every state among the known labels (M, C); a condition without any counts as blank."""
    y = np.asarray(labels)
    counts = np.stack([(y == state).sum(axis=0) for state in range(len(STATES))]).astype(float)
    counts[0, counts.sum(axis=0) == 0] = 1
    return counts / counts.sum(axis=0)


def confusion(probs: ArrayLike, labels: ArrayLike, condition: int) -> NDArray[np.int64]:
    """Records (4, 4) by true state (row) and most probable state (column) of one condition."""
    states, y = np.asarray(probs).argmax(axis=1)[:, condition], np.asarray(labels)[:, condition]
    matrix = np.zeros((len(STATES), len(STATES)), dtype=np.int64)
    np.add.at(matrix, (y[y != IGNORE], states[y != IGNORE]), 1)
    return matrix


def _ratio(top: Floats, bottom: Floats) -> Floats:
    return np.divide(top, bottom, out=np.full(np.shape(top), np.nan), where=bottom > 0)


def _mean(values: Floats) -> Floats:
    """Mean over the last axis of what is not nan; nan if nothing is left."""
    known = ~np.isnan(values)
    return _ratio(np.where(known, values, 0).sum(axis=-1), known.sum(axis=-1).astype(float))
