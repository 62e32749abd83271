"""The comparison of methods: a fair plan, honest splits and noise, equal starts, and results that resume."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from react_kd.comparison import driver, main, training
from react_kd.comparison.cohort import Cohort, flip_labels, split
from react_kd.comparison.plan import ABLATIONS, BUDGETS, DOSES, METHODS, REGIMES, TEACHER, Budget, Run, runs
from react_kd.networks import Teacher
from torch import Tensor

SIZE = (16, 16, 8)
TINY = Budget(
    seeds=1, folds=1, ablation_regimes=("ungraded",), steps=2, teacher_steps=2, graded=9, ungraded_petct=2,
    ungraded_ct=1, test=6, batch_size=4, size=SIZE,
)  # fmt: skip


def make_cohort(graded: int = 9, ungraded: int = 3) -> Cohort:
    """Random images; every sixth case is a second scan, and ungraded scans belong to graded patients."""
    count = graded + ungraded
    regions = torch.zeros(count, 1, *SIZE, dtype=torch.uint8)
    regions[..., :8, :, :], regions[..., 8:, :, :], regions[..., :4, :4, :4] = 1, 2, 5
    label = torch.cat([torch.arange(graded) // 2 % 3, torch.full((ungraded,), -1)])
    return Cohort(
        image=torch.randn(count, 1, *SIZE), pet=torch.randn(count, 2, *SIZE), regions=regions, label=label,
        dose=torch.randn(count, len(DOSES), *SIZE), pet_available=torch.arange(2 * count).view(-1, 2) % 5 > 0,
        patients=[f"p{i - (i % 6 == 1)}" for i in range(graded)] + [f"p{2 + i}" for i in range(ungraded)],
    )  # fmt: skip


@pytest.mark.parametrize("budget", [*BUDGETS.values(), TINY])
def test_the_plan_holds_every_run_once(budget: Budget) -> None:
    todo = runs(budget)
    seeds, folds = range(budget.seeds), range(budget.folds)
    expected = {Run(r, s, f, m) for r, s, f, m in product(REGIMES, seeds, folds, METHODS)}
    expected |= {Run(r, s, f, m) for r, s, f, m in product(budget.ablation_regimes, seeds, folds, ABLATIONS)}
    assert len(todo) == len(expected) == len({run.name for run in todo})
    assert set(todo) == expected


@pytest.mark.parametrize("share", [0.0, 0.15, 0.5, 1.0])
def test_exactly_the_stated_share_of_grades_is_wrong(share: float) -> None:
    label = torch.cat([torch.arange(40) % 3, torch.full((7,), -1)])
    before = label.clone()
    flipped = flip_labels(label, share, seed=3)
    assert int((flipped != label).sum()) == round(share * 40)
    assert torch.equal(flipped[40:], label[40:])
    assert set(flipped[:40].tolist()) <= {0, 1, 2}
    assert torch.equal(label, before)
    assert torch.equal(flipped, flip_labels(label, share, seed=3))
    assert share in (0.0, 1.0) or not torch.equal(
        flipped != label, flip_labels(label, share, seed=4) != label
    )


def test_wrong_grades_go_to_both_others_equally() -> None:
    label = torch.ones(3000, dtype=torch.int64)
    counts = torch.bincount(flip_labels(label, 1.0, seed=0), minlength=3)
    assert counts[1] == 0
    assert abs(int(counts[0]) - 1500) < 150


@pytest.mark.parametrize("ungraded", [False, True])
def test_splits_keep_patients_apart_and_the_ungraded_in_training(ungraded: bool) -> None:
    cohort = make_cohort(graded=24, ungraded=8)
    cohort.image = torch.arange(32.0).view(-1, 1, 1, 1, 1)  # names the case
    held_out: list[float] = []
    for fold in range(3):
        train, validate = split(cohort, seed=1, fold=fold, label_noise=0.25, ungraded=ungraded)
        assert not set(train.patients) & set(validate.patients)
        index = validate.image.flatten().long()
        assert torch.equal(validate.label, cohort.label[index])
        assert bool((validate.label >= 0).all())
        graded = train.label >= 0
        assert bool((~graded).any()) is ungraded
        truth = cohort.label[train.image.flatten().long()]
        assert int((truth != train.label).sum()) == round(0.25 * int(graded.sum()))
        assert torch.equal(train.pet, cohort.pet[train.image.flatten().long()])
        held_out += validate.image.flatten().tolist()
    assert sorted(held_out) == list(range(24))


def test_batches_have_the_stated_mix_and_use_all_cases_equally() -> None:
    label = make_cohort(graded=9, ungraded=4).label
    budget = replace(TINY, batch_size=6, ungraded_ratio=0.34)
    drawn = list(training.batches(label, budget, 18, seed=5, ungraded=True))
    assert all((label[index] < 0).sum() == 2 and len(index) == 6 for index, _ in drawn)
    assert {code for _, code in drawn} <= set(range(8))
    counts = Counter(i for index, _ in drawn for i in index.tolist())
    assert {counts[i] for i in range(9)} == {8}
    assert {counts[i] for i in range(9, 13)} == {9}
    again = training.batches(label, budget, 18, seed=5, ungraded=True)
    assert all(torch.equal(a[0], b[0]) and a[1] == b[1] for a, b in zip(drawn, again, strict=True))
    alone = list(training.batches(label, budget, 18, seed=5, ungraded=False))
    assert all(bool((label[index] >= 0).all()) and len(index) == 6 for index, _ in alone)


def test_the_teacher_is_asked_about_the_flipped_input() -> None:
    cohort, teacher = make_cohort(2, 1), Teacher(**TEACHER).eval()
    cohort.pet_available[:] = True
    said = training.teach_all(teacher, cohort)["all"]
    for code in range(8):
        axes = [axis for axis, step in ((2, 1), (3, 2), (4, 4)) if code & step]
        inputs = (x.flip(axes) for x in (cohort.image, cohort.pet, cohort.dose[:, :1]))
        with torch.inference_mode():
            expected = teacher(*inputs, torch.ones(3, 3, dtype=torch.bool))
        assert said.keys() == expected.keys()
        for key, value in expected.items():
            torch.testing.assert_close(said[key][code].float(), value, atol=2e-3, rtol=2e-3)
    assert not torch.allclose(said["logits"][0], said["logits"][7], atol=1e-3)


def test_all_methods_start_equal_and_see_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    cohort = make_cohort()
    teacher = Teacher(**TEACHER).eval()
    said = {key: value.clone() for key, value in training.teach_all(teacher, cohort)["all"].items()}
    seen: list[Tensor] = []
    encode = training.Student.encode

    def watched(self: training.Student, image: Tensor, available: Tensor) -> dict[str, Tensor]:
        seen.extend([image.clone(), available.clone()])
        return encode(self, image, available)

    monkeypatch.setattr(training.Student, "encode", watched)
    still = replace(TINY, lr=0.0)  # the weights stay as they were
    results: dict[str, tuple[dict[str, Any], list[Tensor]]] = {}
    for method in (*METHODS, *ABLATIONS):
        seen.clear()
        student = training.train_student(method, cohort, said, still, 7, (0.8, 0.7), use_ungraded=True)
        results[method] = (student.state_dict(), list(seen))
    weights, inputs = results.pop("ce")
    for method, (own_weights, own_inputs) in results.items():
        assert own_weights.keys() <= weights.keys(), method
        assert all(torch.equal(value, weights[key]) for key, value in own_weights.items()), method
        if method != "react_no_modality_dropout":
            assert all(torch.equal(a, b) for a, b in zip(own_inputs, inputs, strict=True)), method


def test_perfect_probabilities_score_one_and_uniform_ones_score_chance() -> None:
    label = torch.arange(9) % 3
    names = ("ct", "petct", "ct_500")
    perfect = training.scores({name: torch.eye(3)[label] for name in names}, label)
    assert perfect == {f"auc_{name}": 1.0 for name in names} | {"accuracy": 1.0, "f1": 1.0, "ece": 0.0}
    assert training.scores({"ct": torch.full((9, 3), 1 / 3)}, label)["auc_ct"] == 0.5


@pytest.mark.filterwarnings("ignore:Degrees of freedom", "ignore:invalid value")  # one run has no spread
def test_a_comparison_is_written_and_goes_on_where_it_stopped(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(driver.BUDGETS, "tiny", TINY)
    out = tmp_path / "out"
    assert main("tiny", str(out), workers=1) == str(out / "comparison.html")
    results = {path.stem: path for path in (out / "runs").glob("*.json")}
    assert set(results) == {run.name for run in runs(TINY)}
    text, page = (out / "comparison.md").read_text(), (out / "comparison.html").read_text()
    assert all(regime.title in text and regime.title in page for regime in REGIMES.values())
    figures = {f"{regime}_{kind}" for regime in REGIMES for kind in ("dose", "modality")} | {"differences"}
    assert {path.stem for path in out.glob("*.png")} == figures
    assert page.count("data:image/png;base64,") == len(figures)

    lost = results.pop("ungraded-seed0-fold0-camkd")
    before = json.loads(lost.read_text())
    lost.unlink()
    stamps = {path: path.stat().st_mtime_ns for path in [*results.values(), *(out / "teachers").iterdir()]}
    done: list[str] = []

    def here(job: Callable[[Any], None], arguments: Sequence[Any], workers: int, title: str) -> None:
        for argument in arguments:
            done.append(title)
            job(argument)

    monkeypatch.setattr(driver, "run_in_processes", here)
    main("tiny", str(out), workers=1)
    assert done == ["students"]
    assert json.loads(lost.read_text()) == before
    assert (out / "comparison.md").read_text() == text
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps

    monkeypatch.setitem(driver.BUDGETS, "tiny", replace(TINY, steps=3))
    with pytest.raises(ValueError, match="results of other settings"):
        main("tiny", str(out), workers=1)


def test_an_unknown_form_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="form must be one of short, full, got 'long'"):
        main("long", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
