"""Metrics with their bootstrap replicates: intervals, and differences of two arms on the same studies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from medbundles.intervals import Entry, entry
from medbundles.resampling import Floats


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
        return {name: entry(value, self.replicates.get(name)) for name, value in self.values.items()}

    def minus(self, other: Scored) -> dict[str, Entry]:
        """Differences to another set of predictions for the same studies, with paired intervals."""
        shared = self.replicates.keys() & other.replicates.keys()
        return {
            name: entry(
                self.values[name] - other.values[name], self.replicates[name] - other.replicates[name]
            )
            for name in self.replicates
            if name in shared
        }
