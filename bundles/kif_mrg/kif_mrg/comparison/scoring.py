"""What the runs and the floors score on the test cohort."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from medbundles.text.labeler import label_reports

from kif_mrg import evaluation_floors as floors
from kif_mrg.annotation import read_annotation
from kif_mrg.comparison.plan import ACTIVE, ARMS, Budget, Run, test_cohort, training_cohort
from kif_mrg.comparison.training import trained_arm, training_config, validated
from kif_mrg.conditions import CONDITIONS
from kif_mrg.data import ReportDataset, eval_loader
from kif_mrg.diagnosis_scores import common_states
from kif_mrg.evaluation import Scoring
from kif_mrg.predicting import Prediction, predict
from kif_mrg.records import Record
from kif_mrg.report_scores import ReportScores
from kif_mrg.text import ReportTokenizer

Scores = dict[str, float]
STATES = "state_accuracy"
SHUFFLED = "shuffled_"  # before the name of a metric: of the same reporter with the images of other studies


def run_scores(place: Path, budget: Budget, run: Run) -> Scores:
    """Text metrics, clinical efficacy and diagnosis of a trained run, also with shuffled images.

    place: folder of the run's training.
    """
    config = training_config(place, budget, ARMS[run.arm].training, run.seed)
    reporter, memory = trained_arm(place, config, run)
    precision = config.get_parsed_content("precision")
    precision.prepare(reporter)
    records = _test_records(budget)
    transform = config.get_parsed_content("validate#preprocessing")
    dataset = ReportDataset(records, reporter.tokenizer, transform, memory, config["retrieved"])
    dataset.fill_cache()
    loader = eval_loader(dataset, config["batch_size"])
    search = {name: config[name] for name in ("num_beams", "max_new_tokens", "min_new_tokens")}
    compare = _compare(records, reporter.tokenizer)
    found: Scores = {}
    for prefix, shuffled in (("", False), (SHUFFLED, True)):
        said = predict(reporter, loader, precision, **search, shuffle_images=shuffled)
        reports = [reporter.tokenizer.comparable(row["report"]) for row in said]
        scores = _text_scores(compare, reports) | {STATES: state_accuracy(_states(said), records)}
        found |= {prefix + name: value for name, value in scores.items()}
    return found | validated(place, run)


def floor_scores(budget: Budget, seed: int) -> dict[str, Scores]:
    """Scores of what a seed's training cases say without an image, by the name of the floor."""
    splits, records = read_annotation(training_cohort(budget, seed)), _test_records(budget)
    tokenizer = ReportTokenizer.build([record["report"] for record in splits["train"]])
    train, val = ([tokenizer.comparable(r["report"]) for r in splits[name]] for name in ("train", "val"))
    made, _ = floors.floor_reports(train, val, len(records), seed)
    compare = _compare(records, tokenizer)
    found = {name: _text_scores(compare, reports) for name, reports in made.items()}
    commonest = common_states([record["labels"] for record in splits["train"]]).argmax(axis=0)
    states = np.tile(commonest, (len(records), 1))
    return found | {floors.COMMON_STATES: {STATES: state_accuracy(states, records)}}


def state_accuracy(states: np.ndarray, records: Sequence[Record]) -> float:
    """Share of right states (N, C) over the ACTIVE conditions."""
    active = [CONDITIONS.index(name) for name in ACTIVE]
    labels = np.array([record["labels"] for record in records])
    return float((states == labels)[:, active].mean())


def _states(said: Sequence[Prediction]) -> np.ndarray:
    return np.array([row["states"] for row in said])


def _test_records(budget: Budget) -> list[Record]:
    return read_annotation(test_cohort(budget), "test")["test"]


def _compare(records: Sequence[Record], tokenizer: ReportTokenizer) -> ReportScores:
    references = [tokenizer.comparable(record["report"]) for record in records]
    studies = [record["study_id"] for record in records]
    return ReportScores(references, studies, label_reports, Scoring().efficacy, n_bootstrap=0)


def _text_scores(compare: ReportScores, reports: Sequence[str]) -> Scores:
    return dict(compare.score(reports, label_reports(reports)).values)
