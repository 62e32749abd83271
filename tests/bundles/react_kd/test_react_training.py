"""The training workflow end to end, as MONAI runs train.json, on a tiny simulated cohort."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from medbundles.engines import NonFiniteLossError
from medbundles.engines.checkpointing import load_weights
from react_kd.losses import ReactLoss
from react_kd.networks import Student
from react_training_runs import equal, history, train, training, weights


@pytest.fixture(scope="module")
def teacher(trained: Path) -> dict[str, str]:
    return {"teacher_checkpoint": str(trained / "models" / "teacher.pt")}


@pytest.fixture(scope="module")
def second(tiny_cohort: Path, teacher: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output folder of a run that was given the teacher of the run `trained`."""
    out = tmp_path_factory.mktemp("second")
    train(tiny_cohort, out, **teacher)
    return out


def test_run_leaves_checkpoints_logs_and_report(trained: Path) -> None:
    assert {path.name for path in (trained / "models").iterdir()} == {"teacher.pt", "model.pt"}
    for stage, epochs in (("teacher", 2), ("student", 3)):
        rows = history(trained, stage)
        assert [row["epoch"] for row in rows] == list(range(1, epochs + 1))
        assert all(0 <= row[key] <= 1 for row in rows for key in ("val_auc", "val_acc"))
        assert len(list((trained / "eval" / "tensorboard" / stage).glob("events*"))) == 1
    page = (trained / "eval" / "training.html").read_text()
    assert "simulated liver cohort" in page
    assert page.count("data:image/png") == 2


def test_training_lowers_the_loss(trained: Path) -> None:
    rows = history(trained)
    assert rows[-1]["loss"] < 0.8 * rows[0]["loss"]
    # The loss is the sum of its named terms.
    for row in rows:
        terms = [row[key] for key in ("task", "logits", "node", "edge", "gw")]
        assert row["loss"] == pytest.approx(sum(terms), rel=1e-5)


def test_saved_epoch_is_the_best_by_validation(tiny_cohort: Path, trained: Path, tmp_path: Path) -> None:
    workflow = training(tiny_cohort, tmp_path)
    network, evaluator = workflow.parser.get_parsed_content("network"), workflow.evaluator
    load_weights(network, trained / "models" / "model.pt")
    evaluator.run()
    assert evaluator.state.metrics["val_auc"] == max(row["val_auc"] for row in history(trained))


def test_checkpoint_round_trip_is_exact(trained: Path, tmp_path: Path) -> None:
    path = trained / "models" / "model.pt"
    students = [
        Student(3, 32, encoder_args={"init_filters": 8, "blocks_down": [1, 1, 1]}, pool="avgmax")
        for _ in "ab"
    ]
    load_weights(students[0], path)
    torch.save(students[0].state_dict(), tmp_path / "again.pt")
    load_weights(students[1], tmp_path / "again.pt")
    assert equal(weights(path), students[1].state_dict())
    image = torch.randn(2, 3, 16, 16, 8)
    assert torch.equal(students[0].eval()(image), students[1].eval()(image))


def test_given_teacher_is_not_trained_again(trained: Path, second: Path) -> None:
    assert not (second / "models" / "teacher.pt").exists()
    assert not (second / "eval" / "teacher_history.jsonl").exists()
    # The student does not depend on whether its teacher was trained a moment ago or loaded.
    assert equal(weights(second / "models" / "model.pt"), weights(trained / "models" / "model.pt"))
    assert history(second) == history(trained)


def test_properties_are_reached_by_their_ids(tiny_cohort: Path, tmp_path: Path) -> None:
    assert training(tiny_cohort, tmp_path).check_properties() == []
    assert not any((tmp_path / name).exists() for name in ("models", "eval"))


def test_ungraded_cases_are_learned_from(tiny_cohort: Path, teacher: dict[str, str], tmp_path: Path) -> None:
    """With no grade in the training set, distillation alone trains the student."""
    content = json.loads((tiny_cohort / "datalist.json").read_text())
    for case in content["training"]:
        case.pop("label", None)
        for key in ("image", "liver", "mass", "pet_fdg", "pet_act"):
            if key in case:
                case[key] = str(tiny_cohort / case[key])
    for case in content["validation"]:
        for key in ("image", "liver", "mass", "pet_fdg", "pet_act"):
            case[key] = str(tiny_cohort / case[key])
    datalist = tmp_path / "ungraded.json"
    datalist.write_text(json.dumps(content))
    train(tiny_cohort, tmp_path, datalist=str(datalist), **teacher)
    rows = history(tmp_path)
    assert all(row["task"] == 0 and row["logits"] > 0 and row["node"] > 0 for row in rows)
    assert rows[-1]["logits"] < rows[0]["logits"]


def test_bf16_autocast_trains(
    tiny_cohort: Path, teacher: dict[str, str], second: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[torch.dtype] = set()
    forward = ReactLoss.forward

    def recording(self: ReactLoss, student: Any, *others: Any) -> Any:
        seen.add(student["features"].dtype)
        return forward(self, student, *others)

    monkeypatch.setattr(ReactLoss, "forward", recording)
    train(tiny_cohort, tmp_path, amp="bf16", **teacher)
    assert seen == {torch.bfloat16}
    assert {value.dtype for value in weights(tmp_path / "models" / "model.pt").values()} == {torch.float32}
    assert history(tmp_path)[0]["loss"] == pytest.approx(history(second)[0]["loss"], rel=0.05)


def test_non_finite_loss_stops_and_keeps_the_last_good_checkpoint(
    tiny_cohort: Path, teacher: dict[str, str], second: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = ReactLoss.forward

    def failing(self: ReactLoss, student: Any, taught: Any, batch: Any, epoch: int = 0) -> Any:
        terms = forward(self, student, taught, batch, epoch)
        return {**terms, "edge": terms["edge"] * float("nan")} if epoch == 1 else terms

    with monkeypatch.context() as patch:
        patch.setattr(ReactLoss, "forward", failing)
        with pytest.raises(NonFiniteLossError) as raised:
            train(tiny_cohort, tmp_path, **teacher)
    assert "edge=nan" in str(raised.value)
    assert "epoch 2, iteration 3" in str(raised.value)
    assert all(value.isfinite().all() for value in weights(tmp_path / "models" / "model.pt").values())
    assert [row["epoch"] for row in history(tmp_path)] == [1]
    # With the cause removed the run goes on from its first epoch and ends as if nothing had happened.
    train(tiny_cohort, tmp_path, **teacher)
    assert history(tmp_path) == history(second)
    assert equal(weights(tmp_path / "models" / "model.pt"), weights(second / "models" / "model.pt"))
