"""Train and score every run, each to a file of its own, then write tables and figures."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

from medbundles.processes import run_in_processes
from medbundles.tables import write_json

from rect_vlm import phantom
from rect_vlm.comparison.plan import (
    BUDGETS,
    Budget,
    Run,
    fingerprint,
    run_file,
    test_cohort,
    training_cohort,
    waves,
)
from rect_vlm.comparison.scoring import run_scores
from rect_vlm.comparison.summary import write_summary
from rect_vlm.comparison.training import train, training_folder

Job = tuple[Path, Budget, Run, dict[str, Any]]
FINGERPRINT = "fingerprint.json"


def main(short: bool = False, output: str = "", workers: int = 0, report: bool = False) -> str:
    """Compare the full method with what is left of it; interrupted, the same call goes on where it stopped.

    Args:
        short: one seed instead of three; the long form goes on from it in the same folder.
        output: folder of results; default `rect_vlm_comparison` in the current folder.
        workers: runs at a time, each in a process with one thread; 0 takes one per core.
        report: run nothing, only write the tables and figures of what is complete.

    Returns:
        The tables as Markdown, which are in comparison.md too.

    Raises:
        ValueError: the folder holds runs of other settings or other code; nothing to report.
    """
    budget = BUDGETS["short" if short else "full"]
    folder = Path(output or "rect_vlm_comparison").absolute()
    if not report:
        _run_missing(folder, budget, workers)
    return write_summary(folder, budget)


def _run_missing(folder: Path, budget: Budget, workers: int) -> None:
    plan = {run: fingerprint(budget, run) for wave in waves(budget) for run in wave}
    check_claims(folder, plan)
    places = [test_cohort(budget), *(training_cohort(budget, seed) for seed in range(budget.seeds))]
    run_in_processes(phantom.ensure, places, workers, "cohorts")
    titles = ("runs", "runs on phases of the full ones")
    for title, wave in zip(titles, waves(budget), strict=True):
        missing = [(folder, budget, run, plan[run]) for run in wave if not run_file(folder, run).is_file()]
        run_in_processes(_job, missing, workers, title)


def check_claims(folder: Path, plan: Mapping[Run, Mapping[str, Any]]) -> None:
    """ValueError, with what differs, when the folder holds a run, finished or not, of another fingerprint."""
    wrong = {}
    for run, wanted in plan.items():
        for found in _fingerprints(folder, run):
            if differing := sorted(key for key in {*wanted, *found} if wanted.get(key) != found.get(key)):
                wrong[run.name] = ", ".join(differing)
    if wrong:
        listed = "; ".join(f"{name} ({what})" for name, what in wrong.items())
        raise ValueError(
            f"{folder} holds runs of other settings: {listed}; give another --output, or remove their files "
            "in runs and folders in trainings"
        )


def _fingerprints(folder: Path, run: Run) -> Sequence[Mapping[str, Any]]:
    done, begun = run_file(folder, run), training_folder(folder, run) / FINGERPRINT
    found = [json.loads(done.read_text(encoding="utf-8"))["fingerprint"]] if done.is_file() else []
    return found + ([json.loads(begun.read_text(encoding="utf-8"))] if begun.is_file() else [])


def _job(argument: Job) -> None:
    folder, budget, run, wanted = argument
    place = training_folder(folder, run)
    with _logged(place):
        write_json(place / FINGERPRINT, wanted)
        train(folder, budget, run)
        scores = run_scores(folder, budget, run)
    write_json(run_file(folder, run), {"fingerprint": wanted, "phases": scores})


@contextmanager
def _logged(place: Path) -> Iterator[None]:
    """Progress bars and warnings go to a run's log.txt: several processes cannot share one screen."""
    place.mkdir(parents=True, exist_ok=True)
    with (place / "log.txt").open("a", encoding="utf-8") as stream, redirect_stderr(stream):
        yield
