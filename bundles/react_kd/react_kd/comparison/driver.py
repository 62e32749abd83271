"""Run every training of a comparison, each to a file of its own, then write table, figures and report."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import torch
from medbundles.atomic import replacing
from medbundles.engines.checkpointing import load_weights
from medbundles.processes import run_in_processes
from medbundles.tables import write_json

from react_kd.comparison.cohort import split, test_cohort, training_cohort
from react_kd.comparison.plan import BUDGETS, REGIMES, TEACHER, Budget, Run, fingerprint, runs
from react_kd.comparison.summary import write_summary
from react_kd.comparison.training import (
    scores,
    student_probs,
    teach_all,
    teacher_scores,
    train_student,
    train_teacher,
)
from react_kd.networks import Teacher

logger = logging.getLogger(__name__)


def main(form: str = "short", output: str = "", workers: int = 0, report: bool = False) -> str:
    """Compare the methods in the `short` or `full` form; interrupted, the same call goes on where it stopped.

    Args:
        form: `short` or `full` (see plan.BUDGETS).
        output: folder of results; default `react_kd_comparison_<form>` in the current folder.
        workers: processes, one thread each; 0 takes one per core.
        report: run nothing, only write the tables and figures of what is complete.

    Raises:
        ValueError: unknown form; the folder holds results of other settings.
    """
    if form not in BUDGETS:
        raise ValueError(f"form must be one of {', '.join(BUDGETS)}, got {form!r}")
    budget = BUDGETS[form]
    folder = Path(output or f"react_kd_comparison_{form}")
    _claim(folder, budget)
    if report:
        return str(write_summary(folder, budget))
    test_cohort(budget)
    for seed in range(budget.seeds):
        training_cohort(seed, budget)
    todo = runs(budget)
    keys = sorted({(REGIMES[run.regime].label_noise, run.seed, run.fold) for run in todo})
    teachers = [key for key in keys if not _teacher_path(folder, *key).with_suffix(".json").is_file()]
    students = [run for run in todo if not _student_path(folder, run).is_file() and not _twin(run)]
    run_in_processes(_teacher_job, [(folder, budget, *key) for key in teachers], workers, "teachers")
    run_in_processes(_student_job, [(folder, budget, run) for run in students], workers, "students")
    for run in todo:
        if (twin := _twin(run)) and not _student_path(folder, run).is_file():
            write_json(_student_path(folder, run), json.loads(_student_path(folder, twin).read_text()))
    return str(write_summary(folder, budget))


def _claim(folder: Path, budget: Budget) -> None:
    plan = json.loads(json.dumps(fingerprint(budget)))
    path = folder / "plan.json"
    if path.is_file() and json.loads(path.read_text()) != plan:
        raise ValueError(f"{folder} holds results of other settings; give another --output or remove it")
    write_json(path, plan)


def _teacher_job(argument: tuple[Path, Budget, float, int, int]) -> None:
    """Train a teacher and keep what it says on the training cases of each regime it teaches in."""
    folder, budget, noise, seed, fold = argument
    path = _teacher_path(folder, noise, seed, fold)
    cohort = training_cohort(seed, budget)
    train, validate = split(cohort, seed, fold, noise, ungraded=False)
    teacher = train_teacher(train, budget, seed * 100 + fold)
    with replacing(path) as temporary:
        torch.save(teacher.state_dict(), temporary)
    for name, regime in REGIMES.items():
        if regime.label_noise == noise:
            train, _ = split(cohort, seed, fold, noise, regime.ungraded)
            for streams, said in teach_all(teacher, train).items():
                with replacing(_said_path(folder, name, seed, fold, streams)) as temporary:
                    torch.save(said, temporary)
    measured = {
        "validation": teacher_scores(teacher, validate),
        "test": teacher_scores(teacher, test_cohort(budget)),
    }
    write_json(path.with_suffix(".json"), measured)


def _student_job(argument: tuple[Path, Budget, Run]) -> None:
    folder, budget, run = argument
    regime = REGIMES[run.regime]
    train, _ = split(
        training_cohort(run.seed, budget), run.seed, run.fold, regime.label_noise, regime.ungraded
    )
    weights = _teacher_path(folder, regime.label_noise, run.seed, run.fold)
    validation = json.loads(weights.with_suffix(".json").read_text())["validation"]
    teacher_auc = (validation["function"], validation["dose"])
    teacher = Teacher(**TEACHER)
    load_weights(teacher, weights, "teacher of the comparison")
    streams = {"react_no_function_teacher": "no_function", "react_no_dose_teacher": "no_dose"}
    kept = _said_path(folder, run.regime, run.seed, run.fold, streams.get(run.method, "all"))
    said = torch.load(kept, weights_only=True)
    seed = run.seed * 100 + run.fold
    use_ungraded = regime.ungraded and run.method != "ce"
    student = train_student(run.method, train, said, budget, seed, teacher_auc, use_ungraded, teacher.eval())
    test = test_cohort(budget)
    write_json(_student_path(folder, run), scores(student_probs(student, test), test.label))


def _twin(run: Run) -> Run | None:
    """The run of clean labels that `ce` repeats among ungraded cases: without teacher these teach nothing."""
    return replace(run, regime="few") if (run.regime, run.method) == ("ungraded", "ce") else None


def _teacher_path(folder: Path, noise: float, seed: int, fold: int) -> Path:
    return folder / "teachers" / f"noise{noise:g}-seed{seed}-fold{fold}.pt"


def _said_path(folder: Path, regime: str, seed: int, fold: int, streams: str) -> Path:
    return folder / "said" / f"{regime}-seed{seed}-fold{fold}-{streams}.pt"


def _student_path(folder: Path, run: Run) -> Path:
    return folder / "runs" / f"{run.name}.json"
