"""From the scores of all runs to tables, figures, a Markdown file and an HTML report."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from medbundles.atomic import write_text
from medbundles.figures import comparison_forest
from medbundles.report import HtmlReport, save_figure
from medbundles.resampling import Floats, paired_difference
from medbundles.tables import markdown_table

from kif_mrg.comparison.plan import ACTIVE, ARMS, BASELINE, UNTAUGHT, Budget, Run, floors_file, run_file
from kif_mrg.comparison.scoring import SHUFFLED, STATES

Row = dict[str, Any]
Scores = Mapping[str, float | None]
METRICS = {
    "ce_example_f1": "CE F1", "ce_micro_f1": "CE micro F1", "ce_macro_f1": "CE macro F1", "bleu1": "BLEU-1",
    "bleu4": "BLEU-4", "rouge_l": "ROUGE-L", "cider_d": "CIDEr-D", "meteor_lite": "METEOR (lite)",
    STATES: "states",
}  # fmt: skip
COMPARED = ("ce_example_f1", "bleu4", STATES)
REFERENCES = (BASELINE, UNTAUGHT)
NOTE = (
    "Simulated cohort, not patients. Each seed has a cohort of its own for training and validation; all arms "
    "of a seed start from one random seed and see the same cases. The epoch was chosen on the validation "
    "cases; every arm was scored once, on one independent test cohort, by beam search. Round 1 has its round "
    "0 as teacher, so arms with a teacher took two trainings and the others one. CE: clinical efficacy by "
    "the rule labeler, example-based unless named otherwise. States: share of right states of the diagnosis "
    f"over {', '.join(ACTIVE)}. Values are means and standard deviations over seeds; differences are paired "
    "over seeds, with 95 % t intervals."
)
SHUFFLED_NOTE = (
    "The same reporters, every case with the image of another study. Retrieved reports stay those of its own "
    "image, so what an arm with a memory keeps may come from them."
)
FLOORS_NOTE = "The last rows are floors, made of each seed's training cases without an image."


@dataclass(frozen=True)
class Results:
    """Scores of the seeds that have all of them: by run, and by seed and name of the floor."""

    seeds: Sequence[int]
    arms: Sequence[str]
    runs: Mapping[Run, Scores]
    floors: Mapping[int, Mapping[str, Scores]]

    def arm(self, name: str, metric: str) -> Floats:
        """One value per seed, in the same order for all arms; nan where a metric is not defined."""
        return np.array([self.runs[Run(name, seed)].get(metric) for seed in self.seeds], dtype=float)

    def floor(self, name: str, metric: str) -> Floats:
        """The same of a floor."""
        return np.array([self.floors[seed][name].get(metric) for seed in self.seeds], dtype=float)


def write_summary(folder: Path, budget: Budget) -> Path:
    """Write `comparison.md`, figures and `comparison.html` of all seeds that are complete.

    Raises:
        ValueError: no seed is complete.
    """
    results = _complete(folder, budget)
    size = f"{len(results.seeds)} seeds of {budget.seeds} planned, {budget.test} test cases"
    page = HtmlReport("KIF-ISD comparison", size)
    page.paragraph(NOTE)
    arms = [{"arm": name, "what it is": arm.title} for name, arm in ARMS.items() if name in budget.arms]
    page.table(arms, "Arms")
    text = [NOTE, "", size, "", markdown_table(arms)]
    tables = (
        ("Scores on the test cohort", FLOORS_NOTE, _score_rows(results)),
        ("Differences", "Means over the seeds; above 0 the arm is better.", _difference_rows(results)),
        ("Shuffled images", SHUFFLED_NOTE, _shuffled_rows(results)),
    )
    for title, note, rows in tables:
        page.heading(title)
        page.table(rows, note)
        text += [f"**{title}.** {note}", "", markdown_table(rows)]
    for reference in REFERENCES:
        path = save_figure(_forest(results, reference), folder / f"minus_{reference}.png")
        page.heading(f"Differences to {reference}")
        page.figure(path, f"Paired differences to {reference} over {len(results.seeds)} seeds")
    write_text(folder / "comparison.md", "\n".join(text))
    return page.save(folder / "comparison.html")


def _complete(folder: Path, budget: Budget) -> Results:
    def files(seed: int) -> list[Path]:
        return [run_file(folder, Run(arm, seed)) for arm in budget.arms] + [floors_file(folder, seed)]

    seeds = [seed for seed in range(budget.seeds) if all(file.is_file() for file in files(seed))]
    if not seeds:
        raise ValueError(f"{folder} holds no seed with all of its runs")
    done = [Run(arm, seed) for arm in budget.arms for seed in seeds]
    return Results(
        seeds,
        budget.arms,
        {run: json.loads(run_file(folder, run).read_text()) for run in done},
        {seed: json.loads(floors_file(folder, seed).read_text()) for seed in seeds},
    )


def _score_rows(results: Results) -> list[Row]:
    def row(name: str, values: Callable[[str, str], Floats]) -> Row:
        return {"arm": name, **{title: _spread(values(name, metric)) for metric, title in METRICS.items()}}

    floors = results.floors[results.seeds[0]]
    return [row(name, results.arm) for name in results.arms] + [row(name, results.floor) for name in floors]


def _difference_rows(results: Results) -> list[Row]:
    def against(name: str, reference: str, metric: str) -> str:
        if name == reference:
            return ""
        mean, low, high = _difference(results, name, reference, metric)
        return f"{mean:+.3f}" if np.isnan(low) else f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"

    columns = {
        f"{METRICS[metric]} minus {reference}": (reference, metric)
        for reference in REFERENCES
        for metric in COMPARED
    }
    return [
        {"arm": name, **{title: against(name, *column) for title, column in columns.items()}}
        for name in results.arms
    ]


def _shuffled_rows(results: Results) -> list[Row]:
    def row(name: str) -> Row:
        shown = {METRICS[metric]: _spread(results.arm(name, SHUFFLED + metric)) for metric in COMPARED}
        return {"arm": name, **shown}

    return [row(name) for name in results.arms]


def _spread(values: Floats) -> str | None:
    if np.isnan(values).all():
        return None
    return f"{values.mean():.3f} ± {values.std(ddof=1):.3f}" if len(values) > 1 else f"{values[0]:.3f}"


def _difference(results: Results, name: str, reference: str, metric: str) -> tuple[float, float, float]:
    """Mean over seeds and its t interval; nan limits for a single seed."""
    found = paired_difference(results.arm(name, metric), results.arm(reference, metric))
    return found["mean"], found["t_low"], found["t_high"]


def _forest(results: Results, reference: str) -> Figure:
    differences = {
        METRICS[metric]: {
            name: _difference(results, name, reference, metric) for name in results.arms if name != reference
        }
        for metric in COMPARED
    }
    return comparison_forest(
        differences,
        reference=reference,
        n_runs=len(results.seeds),
        metric="score",
        subtitle="simulated cohort; independent test cohort",
    )
