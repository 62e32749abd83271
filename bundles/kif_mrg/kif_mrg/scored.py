"""Metrics with their bootstrap replicates: intervals, and differences of two arms on the same studies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from medbundles.resampling import Floats, percentile_interval

Entry = dict[str, float]  # value, low, high; without an interval low and high are nan

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Scored:
    """Metrics of one set of predictions.

    values: by name. replicates: (R,) of the metrics that have an interval; replicate r draws the same studies
    for all metrics and all sets of predictions.
    """

    values: Mapping[str, float]
    replicates: Mapping[str, Floats] = field(default_factory=dict)

    def entries(self) -> dict[str, Entry]:
        """Value and percentile interval of every metric."""
        return {name: self._entry(value, self.replicates.get(name)) for name, value in self.values.items()}

    def minus(self, other: Scored) -> dict[str, Entry]:
        """Differences to another set of predictions for the same studies, with paired intervals."""
        shared = self.replicates.keys() & other.replicates.keys()
        return {
            name: self._entry(
                self.values[name] - other.values[name], self.replicates[name] - other.replicates[name]
            )
            for name in self.replicates
            if name in shared
        }

    @staticmethod
    def _entry(value: float, replicates: Floats | None) -> Entry:
        low = high = np.nan
        if replicates is not None:
            low, high = map(float, percentile_interval(replicates, CONFIDENCE))
        return {"value": float(value), "low": low, "high": high}


def with_interval(entry: Entry) -> str:
    """`0.812 [0.741, 0.879]`, or a dash where the metric is not defined."""
    if np.isnan(entry["value"]):
        return "–"
    value = f"{entry['value']:.3f}"
    return value if np.isnan(entry["low"]) else f"{value} [{entry['low']:.3f}, {entry['high']:.3f}]"
