"""Uncertainty of a metric: patients drawn with replacement, and runs of two methods compared in pairs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def bootstrap_weights(patients: Sequence[str] | NDArray, n_replicates: int, seed: int = 0) -> Floats:
    """Weights (R,N) of N cases in R bootstrap replicates that draw whole patients with replacement.

    `patients` (N,) names the patient of each case; all cases of a patient share its weight, the number of
    times it was drawn. A metric that takes case weights is evaluated in all replicates at once
    (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 8: the cluster is the unit drawn).
    """
    names, patient_of_case = np.unique(np.asarray(patients), return_inverse=True)
    share = np.full(len(names), 1 / len(names))
    draws = np.random.default_rng(seed).multinomial(len(names), share, size=n_replicates)  # (R, patients)
    return draws[:, patient_of_case].astype(np.float64)


def percentile_interval(samples: ArrayLike, confidence: float = 0.95) -> tuple[Floats, Floats]:
    """Lower and upper percentile limits over the first axis of `samples` (R,...), nan replicates left out."""
    values = np.asarray(samples, dtype=np.float64)
    limits = np.full((2, *values.shape[1:]), np.nan)
    known = ~np.isnan(values).all(axis=0)  # also False where R = 0
    if known.any():
        tail = (1 - confidence) / 2
        limits[:, known] = np.nanquantile(values[:, known], [tail, 1 - tail], axis=0)
    return limits[0], limits[1]


def paired_difference(
    a: ArrayLike, b: ArrayLike, confidence: float = 0.95, n_bootstrap: int = 10_000, seed: int = 0
) -> dict[str, float | int]:
    """Mean of `a - b` over paired runs with its t interval and its percentile bootstrap interval.

    `a` and `b` (R,) hold one metric of two methods on the same (seed, fold) runs in the same order. A run in
    which either value is nan is left out and counted in `dropped`. Runs that share training cases are not
    independent, so both intervals describe these runs and are too narrow for a new cohort (Nadeau and
    Bengio, Machine Learning 2003).

    Raises:
        ValueError: `a` and `b` do not hold the same number of runs, or `confidence` is not in (0,1).
    """
    from scipy.stats import t as student_t

    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape != second.shape or first.ndim != 1:
        raise ValueError(f"a and b must hold the same runs, got shapes {first.shape} and {second.shape}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}")
    difference = (first - second)[~np.isnan(first - second)]
    n = len(difference)
    mean, sd, half, low, high = (float("nan"),) * 5
    if n:
        mean = float(difference.mean())
    if n > 1:
        sd = float(difference.std(ddof=1))
        half = float(student_t.ppf((1 + confidence) / 2, n - 1)) * sd / n**0.5
        drawn = np.random.default_rng(seed).integers(n, size=(n_bootstrap, n))
        low, high = map(float, percentile_interval(difference[drawn].mean(axis=1), confidence))
    return {
        "n": n,
        "dropped": len(first) - n,
        "mean": mean,
        "sd": sd,
        "t_low": mean - half,
        "t_high": mean + half,
        "bootstrap_low": low,
        "bootstrap_high": high,
    }


def other_group(groups: Sequence[str], seed: int = 0, where: str = "of group") -> list[int]:
    """A permutation that leads every case to one of another group (patient, study); the same for one seed.

    Raises:
        ValueError: more than half of the cases are of one group; `where` says what groups are: "in study".
    """
    names, codes, counts = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    largest = int(counts.max())
    if 2 * largest > len(groups):
        kind = where.split()[-1]
        raise ValueError(
            f"shuffled images need no {kind} with more than half of the records, "
            f"got {largest} of {len(groups)} {where} {names[counts.argmax()]}"
        )
    # Side by side by group, in random order; a step as long as the largest group leaves every group.
    order = np.argsort(np.random.default_rng(seed).permutation(len(names))[codes], kind="stable")
    partner = np.empty_like(order)
    partner[order] = np.roll(order, -largest)
    return partner.tolist()
