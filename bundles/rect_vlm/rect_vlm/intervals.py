"""Values with the percentile intervals of their bootstrap replicates."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from medbundles.resampling import Floats, percentile_interval

Entry = dict[str, float]  # value, low, high; without an interval low and high are nan
Replicated = Mapping[str, tuple[float, Floats | None]]  # a value and its replicates (R,)

CONFIDENCE = 0.95


def entry(value: float, replicates: Floats | None = None) -> Entry:
    """A value with its interval at 95 % confidence."""
    low = high = math.nan
    if replicates is not None:
        low, high = map(float, percentile_interval(replicates, CONFIDENCE))
    return {"value": float(value), "low": low, "high": high}


def entries(scores: Replicated) -> dict[str, Entry]:
    """Values with their intervals, by name."""
    return {name: entry(*score) for name, score in scores.items()}


def differences(own: Replicated, other: Replicated) -> dict[str, Entry]:
    """Differences of the scores that have replicates in both; replicate r must draw the same scans."""
    found = {}
    for name, (value, replicates) in own.items():
        theirs, drawn = other.get(name, (math.nan, None))
        if replicates is not None and drawn is not None:
            found[name] = entry(value - theirs, replicates - drawn)
    return found


def replicated(values: Mapping[str, Floats], replicates: Mapping[str, Floats]) -> Replicated:
    """Values of one computation without weights and of the same one with them."""
    return {name: (float(value), np.asarray(replicates[name])) for name, value in values.items()}


def with_interval(found: Entry) -> str:
    """`0.812 [0.741, 0.879]`, or a dash where the score is not defined."""
    if math.isnan(found["value"]):
        return "–"
    value = f"{found['value']:.3f}"
    return value if math.isnan(found["low"]) else f"{value} [{found['low']:.3f}, {found['high']:.3f}]"
