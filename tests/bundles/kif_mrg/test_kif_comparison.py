"""The comparison: a plan without double work, arms that differ in one part, honest scores, and resuming."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kif_evaluation_runs import SMALL
from kif_mrg import phantom
from kif_mrg.annotation import read_annotation
from kif_mrg.comparison import driver, main, plan, scoring
from kif_mrg.comparison.plan import ACTIVE, ARMS, BUDGETS, TRAININGS, Budget, runs, trainings
from kif_mrg.comparison.summary import METRICS
from kif_mrg.comparison.training import training_config
from kif_mrg.conditions import CONDITIONS
from kif_mrg.networks import KifReporter

CHANGES = {key: value for key, value in SMALL.items() if key not in ("n_bootstrap", "gallery")}
CHANGES |= {"epochs": 1, "batch_size": 8, "device": "cpu", "train#handlers#3#progress": False}
TINY = Budget(seeds=1, train=10, val=4, test=5, image_size=64, changes=CHANGES)
TAUGHT = ("full", "no_distillation", "baseline")


def reporter(folder: Path, name: str) -> KifReporter:
    torch.manual_seed(0)
    return training_config(folder, TINY, name, 0).get_parsed_content("reporter")


@pytest.mark.parametrize("budget", BUDGETS.values())
def test_every_arm_is_run_once_per_seed_and_round_0_is_shared(budget: Budget) -> None:
    todo = runs(budget)
    assert len(todo) == len(set(todo)) == len({run.name for run in todo}) == budget.seeds * len(budget.arms)
    needed = {ARMS[name].training for name in budget.arms}
    assert set(trainings(budget)) == {(name, seed) for name in needed for seed in range(budget.seeds)}
    assert len(trainings(budget)) == budget.seeds * len(needed)
    assert ARMS["full"].training == ARMS["no_distillation"].training
    assert (ARMS["full"].round, ARMS["no_distillation"].round) == (1, 0)
    assert all(arm.round < TRAININGS[arm.training].rounds for arm in ARMS.values())


def test_arms_lack_what_they_say_and_nothing_else(cache: Path, tmp_path: Path) -> None:
    made = {name: reporter(tmp_path / name, name) for name in TRAININGS}
    whole = {name: value.shape for name, value in made["full"].state_dict().items()}

    def lacks(name: str) -> set[str]:
        """First parts of the names of the weights that are not there."""
        own = {key: value.shape for key, value in made[name].state_dict().items()}
        changed = {key for key in own if own[key] != whole.get(key)}
        assert changed <= {"diagnosis.classify.weight"}, name
        return {".".join(key.split(".")[:2]) for key in whole.keys() - own.keys()}

    memory = {"diagnosis.query", "diagnosis.query_fusion", "diagnosis.aggregator"}
    assert {part.split(".")[0] for part in lacks("no_graph")} == {"tags", "fusion"}
    assert lacks("no_memory") == memory
    assert lacks("no_query_fusion") == {"diagnosis.query_fusion"}
    assert lacks("baseline") == lacks("no_graph") | memory
    config = training_config(tmp_path, TINY, "baseline", 0)
    assert config.get_parsed_content("train#dataset").memory is None
    assert config.get_parsed_content("rounds") == 1


def test_training_and_test_cases_come_from_other_seeds(cache: Path) -> None:
    folders = {plan.training_cohort(TINY, 0), plan.training_cohort(TINY, 1), plan.test_cohort(TINY)}
    assert len(folders) == 3
    splits = read_annotation(plan.test_cohort(TINY))
    assert [len(splits[name]) for name in ("train", "val", "test")] == [0, 0, TINY.test]
    assert phantom.case_facts(plan.TEST_SEED, "test", 0) != phantom.case_facts(0, "test", 0)


def test_state_accuracy_counts_the_active_conditions_alone() -> None:
    labels = np.zeros((2, len(CONDITIONS)), dtype=int)
    records: Any = [{"labels": row.tolist()} for row in labels]
    states = labels.copy()
    states[:, [i for i, name in enumerate(CONDITIONS) if name not in ACTIVE]] = 2
    assert scoring.state_accuracy(states, records) == 1
    states[1, CONDITIONS.index("pleural_effusion")] = 1
    assert scoring.state_accuracy(states, records) == pytest.approx(9 / 10)


def test_the_training_is_that_of_the_command(cache: Path, tmp_path: Path) -> None:
    """What differs from train.json are folders, seed, sizes and the arm's own change."""
    config = training_config(tmp_path, BUDGETS["full"], "no_query_fusion", 3)
    plain = type(config)(type(config).load_config_file(plan.config_file()))
    differing = {key for key in plain.config if config[key] != plain[key]}
    assert differing == {"dataset_dir", "ckpt_dir", "output_dir", "seed", "rounds", "network_def"}
    assert config["network_def"] == {**plain["network_def"], "query_fusion": "none"}


def test_a_comparison_is_written_and_goes_on_where_it_stopped(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = replace(TINY, arms=TAUGHT)
    monkeypatch.setitem(driver.BUDGETS, "tiny", tiny)
    done: list[str] = []

    def here(job: Callable[[Any], None], arguments: Sequence[Any], workers: int, title: str) -> None:
        for argument in arguments:
            done.append(title)
            sent = pickle.loads(pickle.dumps((job, argument)))  # noqa: S301 - as another process gets it
            sent[0](sent[1])

    monkeypatch.setattr(driver, "run_in_processes", here)
    out = tmp_path / "out"
    with pytest.raises(ValueError, match="no seed with all of its runs"):
        main("tiny", str(out), report=True)
    assert main("tiny", str(out), workers=1) == str(out / "comparison.html")
    assert done == ["trainings"] * 2 + ["test cohort"] * 3
    results = {path.stem: json.loads(path.read_text()) for path in (out / "runs").glob("*.json")}
    assert set(results) == {f"{name}-seed0" for name in (*TAUGHT, "floors")}
    for name in TAUGHT:
        scores = results[f"{name}-seed0"]
        assert set(METRICS) | {f"shuffled_{metric}" for metric in METRICS} < set(scores)
        assert all(0 <= scores[key] <= 1 for key in ("ce_example_f1", "bleu4", "shuffled_state_accuracy"))
    text, page = (out / "comparison.md").read_text(), (out / "comparison.html").read_text()
    assert all(f"| {name} |" in text and f"{name}</td>" in page for name in (*TAUGHT, "constant report"))
    assert f"{results['full-seed0']['rouge_l']:.3f}" in text
    assert page.count("data:image/png;base64,") == 2
    assert (out / "trainings/full-seed0/eval/training.html").is_file()

    lost = out / "runs/no_distillation-seed0.json"
    lost.unlink()
    (out / "trainings/baseline-seed0/eval/rounds.json").unlink()
    done.clear()
    main("tiny", str(out), workers=1)
    assert done == ["trainings", "test cohort"]
    assert json.loads(lost.read_text()) == results["no_distillation-seed0"]
    assert (out / "comparison.md").read_text() == text

    monkeypatch.setitem(driver.BUDGETS, "tiny", replace(tiny, val=5))
    with pytest.raises(ValueError, match=r"results of other settings \(budget\)"):
        main("tiny", str(out))


def test_an_unknown_form_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="form must be one of short, full, got 'long'"):
        main("long", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
