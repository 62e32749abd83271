"""Values with the percentile intervals of their bootstrap replicates."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from medbundles.intervals import Entry, entry
from medbundles.resampling import Floats

Replicated = Mapping[str, tuple[float, Floats | None]]  # a value and its replicates (R,)


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
