"""Run every training and score every arm, each to a file of its own, then write tables and figures."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path

from medbundles.processes import run_in_processes
from medbundles.tables import write_json

from kif_mrg import phantom
from kif_mrg.comparison.plan import (
    ARMS,
    BUDGETS,
    Budget,
    Run,
    fingerprint,
    floors_file,
    run_file,
    runs,
    test_cohort,
    training_cohort,
    trainings,
)
from kif_mrg.comparison.scoring import floor_scores, run_scores
from kif_mrg.comparison.summary import write_summary
from kif_mrg.comparison.training import is_trained, train, training_folder


def main(form: str = "short", output: str = "", workers: int = 0, report: bool = False) -> str:
    """Compare the arms in the `short` or `full` form; interrupted, the same call goes on where it stopped.

    Args:
        form: `short` or `full` (see plan.BUDGETS).
        output: folder of results; default `kif_mrg_comparison_<form>` in the current folder.
        workers: processes, one thread each; 0 takes one per core.
        report: run nothing, only write the tables and figures of what is complete.

    Raises:
        ValueError: unknown form; the folder holds results of other settings.
    """
    if form not in BUDGETS:
        raise ValueError(f"form must be one of {', '.join(BUDGETS)}, got {form!r}")
    budget = BUDGETS[form]
    folder = Path(output or f"kif_mrg_comparison_{form}").absolute()
    _claim(folder, budget)
    if report:
        return str(write_summary(folder, budget))
    phantom.ensure(test_cohort(budget))
    for seed in range(budget.seeds):
        phantom.ensure(training_cohort(budget, seed))
    untrained = [
        (folder, budget, name, seed)
        for name, seed in trainings(budget)
        if not is_trained(training_folder(folder, name, seed))
    ]
    run_in_processes(_train_job, untrained, workers, "trainings")
    unscored = [(folder, budget, run) for run in runs(budget) if not run_file(folder, run).is_file()]
    run_in_processes(_score_job, unscored, workers, "test cohort")
    for seed in range(budget.seeds):
        if not floors_file(folder, seed).is_file():
            write_json(floors_file(folder, seed), floor_scores(budget, seed))
    return str(write_summary(folder, budget))


def _claim(folder: Path, budget: Budget) -> None:
    plan = json.loads(json.dumps(fingerprint(budget)))
    path = folder / "plan.json"
    if path.is_file():
        found = json.loads(path.read_text())
        if differing := sorted(key for key in {*plan, *found} if plan.get(key) != found.get(key)):
            raise ValueError(
                f"{folder} holds results of other settings ({', '.join(differing)}); "
                "give another --output or remove it"
            )
    write_json(path, plan)


def _train_job(argument: tuple[Path, Budget, str, int]) -> None:
    folder, budget, name, seed = argument
    place = training_folder(folder, name, seed)
    with _logged(place):
        train(place, budget, name, seed)


def _score_job(argument: tuple[Path, Budget, Run]) -> None:
    folder, budget, run = argument
    place = training_folder(folder, ARMS[run.arm].training, run.seed)
    with _logged(place):
        scores = run_scores(place, budget, run)
    write_json(run_file(folder, run), scores)


@contextmanager
def _logged(place: Path) -> Iterator[None]:
    """Progress bars and warnings go to a training's log.txt: several processes cannot share one screen."""
    place.mkdir(parents=True, exist_ok=True)
    with (place / "log.txt").open("a") as stream, redirect_stderr(stream):
        yield
