"""A score with the percentile interval of its bootstrap replicates, as a table shows it."""

from __future__ import annotations

import math

from medbundles.resampling import Floats, percentile_interval

Entry = dict[str, float]  # value, low, high; without an interval low and high are nan

CONFIDENCE = 0.95


def entry(value: float, replicates: Floats | None = None) -> Entry:
    """A value with its interval at 95 % confidence from replicates (R,)."""
    low = high = math.nan
    if replicates is not None:
        low, high = map(float, percentile_interval(replicates, CONFIDENCE))
    return {"value": float(value), "low": low, "high": high}


def with_interval(found: Entry) -> str:
    """`0.812 [0.741, 0.879]`, or a dash where the score is not defined."""
    if math.isnan(found["value"]):
        return "–"
    value = f"{found['value']:.3f}"
    return value if math.isnan(found["low"]) else f"{value} [{found['low']:.3f}, {found['high']:.3f}]"
