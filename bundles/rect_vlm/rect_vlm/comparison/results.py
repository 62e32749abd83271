"""The scores of all runs that are complete, as one value per seed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from medbundles.intervals import Entry, with_interval
from medbundles.resampling import Floats, paired_difference

from rect_vlm.comparison.plan import ARMS, FULL, Budget, Run, run_file

Phases = Mapping[str, Mapping[str, float | None]]
COMMON = ("changes", "test", "configs", "text_encoder", "code")  # the same in all runs of a comparison


@dataclass(frozen=True)
class Results:
    """Scores by run, phase and path; seeds: those whose full run is complete."""

    seeds: list[int]
    runs: Mapping[Run, Phases]

    def seeds_of(self, arm: str) -> list[int]:
        """Seeds whose run of an arm is complete."""
        return [seed for seed in self.seeds if Run(arm, seed) in self.runs]

    def values(self, arm: str, phase: str, path: str) -> Floats:
        """One score per seed, in the order of `seeds`; nan where a run is missing or it is not defined."""
        found = [self.runs.get(Run(arm, seed), {}).get(phase, {}).get(path) for seed in self.seeds]
        return np.array([np.nan if value is None else value for value in found], dtype=np.float64)

    def paths(self, phase: str, start: str) -> list[str]:
        """What is left of the paths of a phase of the full runs that begin with `start`, in their order."""
        paths = self.runs[Run(FULL, self.seeds[0])].get(phase, {})
        return [path.removeprefix(start) for path in paths if path.startswith(start)]


def read_results(folder: Path, budget: Budget) -> Results:
    """The complete runs of a folder.

    Raises:
        ValueError: no full run is complete, or runs of different settings or code.
    """
    found: dict[Run, dict[str, Any]] = {}
    for run in (Run(arm, seed) for arm in ARMS for seed in range(budget.seeds)):
        if (file := run_file(folder, run)).is_file():
            found[run] = json.loads(file.read_text(encoding="utf-8"))
    seeds = [seed for seed in range(budget.seeds) if Run(FULL, seed) in found]
    if not seeds:
        raise ValueError(f"{folder} holds no complete run of the full method")
    prints = [content["fingerprint"] for content in found.values()]
    if unlike := [key for key in COMMON if any(each[key] != prints[0][key] for each in prints)]:
        raise ValueError(f"the runs in {folder} are not alike in {', '.join(unlike)}")
    return Results(seeds, {run: content["phases"] for run, content in found.items()})


def spread(values: Floats) -> str | None:
    """`0.812 ± 0.013`, mean and standard deviation over the seeds; None where nothing is known."""
    known = values[~np.isnan(values)]
    if not len(known):
        return None
    mean = f"{known.mean():.3f}"
    return f"{mean} ± {known.std(ddof=1):.3f}" if len(known) > 1 else mean


def difference(own: Floats, other: Floats) -> Entry:
    """Mean of `own - other` over the seeds that have both, with its t interval."""
    found = paired_difference(own, other)
    return {"value": found["mean"], "low": found["t_low"], "high": found["t_high"]}


def difference_cells(own: Floats, other: Floats) -> dict[str, str]:
    """The difference with its interval, and that of every seed."""
    each = [f"{value:+.3f}" for value in own - other if not np.isnan(value)]
    return {"difference": with_interval(difference(own, other)), "by seed": ", ".join(each) or "–"}
