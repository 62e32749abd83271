"""Rounds of self-distillation end to end, as MONAI runs train.json, on a tiny simulated cohort."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from kif_mrg.losses import IsdLoss
from kif_mrg.phantom import SIMULATED, is_simulated
from kif_mrg.rounds import Rounds
from kif_mrg.text import ReportTokenizer
from kif_mrg.workflow import ReportEvaluator
from kif_training_runs import TINY, equal, history, train, training, weights
from medbundles.engines.checkpointing import load_weights
from torch import Tensor

TERMS = {0: ("lm", "cls"), 1: ("lm", "cls", "seq", "rel")}
METRICS = ("val_ce_f1", "val_bleu4", "val_state_acc")


def script_metric(monkeypatch: pytest.MonkeyPatch, values: Iterator[float]) -> None:
    """Let the validations of a run find these values of the metric, one after another."""

    def scripted(self: ReportEvaluator) -> None:
        self.state.metrics |= {"val_ce_f1": next(values), "val_bleu4": 0.0, "val_state_acc": 0.0}

    monkeypatch.setattr(ReportEvaluator, "_score", scripted)


def test_run_leaves_checkpoints_logs_and_report(trained: Path) -> None:
    models = {"round0.pt", "round1.pt", "reporter.pt", "model.pt", "tokenizer"}
    assert {path.name for path in (trained / "models").glob("*")} == {
        *models, "memory.npz", "memory.retrieved.npz",
    }  # fmt: skip
    for index, terms in TERMS.items():
        rows = history(trained, index)
        assert [row["epoch"] for row in rows] == [1, 2]
        assert all(set(row) == {"epoch", "loss", *terms, *METRICS} for row in rows)
        assert all(row["loss"] == pytest.approx(sum(row[term] for term in terms), rel=1e-5) for row in rows)
        assert all(0 <= row[metric] <= 1 for row in rows for metric in METRICS)
        assert len(list((trained / "eval" / "tensorboard" / f"round{index}").glob("events*"))) == 1
    page = (trained / "eval" / "training.html").read_text()
    assert page.count("data:image/png") == 2
    assert "2 rounds, round " in page
    assert SIMULATED in page
    assert "Round 0, without a teacher" in page
    assert "Round 1, with round 0 as teacher" in page


def test_page_of_other_data_does_not_call_them_simulated(tiny_cohort: Path, tmp_path: Path) -> None:
    assert is_simulated(tiny_cohort)
    assert is_simulated(tiny_cohort / "annotation.json")
    shutil.copy(tiny_cohort / "annotation.json", tmp_path)
    assert not is_simulated(tmp_path)
    assert not is_simulated(tmp_path / "annotation.json")
    places = {"annotation": str(tmp_path / "annotation.json"), "image_dir": str(tiny_cohort / "images")}
    train(tiny_cohort, tmp_path, epochs=1, rounds=1, **places)
    assert SIMULATED not in (tmp_path / "eval" / "training.html").read_text()


def test_summary_names_the_best_epoch_of_every_round(trained: Path) -> None:
    summary = json.loads((trained / "eval" / "rounds.json").read_text())
    for index, row in enumerate(summary["rounds"]):
        found = [epoch["val_ce_f1"] for epoch in history(trained, index)]
        assert (row["round"], row["val_ce_f1"]) == (index, max(found))
        assert row["epoch"] == found.index(max(found)) + 1
    scores = [row["val_ce_f1"] for row in summary["rounds"]]
    assert scores[summary["best"]] == max(scores)
    assert equal(
        weights(trained / "models" / "reporter.pt"),
        weights(trained / "models" / f"round{summary['best']}.pt"),
    )


def test_training_lowers_the_loss(trained: Path) -> None:
    for index in TERMS:
        rows = history(trained, index)
        assert rows[1]["loss"] < 0.95 * rows[0]["loss"]
        assert rows[1]["lm"] < rows[0]["lm"]


def test_saved_weights_measure_what_was_reported(tiny_cohort: Path, trained: Path, tmp_path: Path) -> None:
    workflow = training(tiny_cohort, tmp_path)
    reporter, evaluator = workflow.parser.get_parsed_content("reporter"), workflow.evaluator
    workflow.parser.get_parsed_content("prepare")()
    load_weights(reporter, trained / "models" / "reporter.pt")
    # The tokenizer of the same reports is the same wherever it is built.
    kept = ReportTokenizer.load(trained / "models" / "tokenizer")
    assert kept.hf.get_vocab() == reporter.tokenizer.hf.get_vocab()
    evaluator.run()
    best = json.loads((trained / "eval" / "rounds.json").read_text())["best"]
    assert evaluator.state.metrics["val_ce_f1"] == max(row["val_ce_f1"] for row in history(trained, best))


def test_image_part_stands_alone(tiny_cohort: Path, trained: Path, tmp_path: Path) -> None:
    network = training(tiny_cohort, tmp_path).parser.get_parsed_content("network_def")
    before = network.prior_memory.clone()
    load_weights(network, trained / "models" / "model.pt")
    whole = weights(trained / "models" / "reporter.pt")
    assert all(torch.equal(value, whole[f"diagnosis.{key}"]) for key, value in network.state_dict().items())
    assert not torch.equal(network.prior_memory, before)  # typical reports instead of the placeholder
    torch.testing.assert_close(network.prior_memory.norm(dim=1), torch.ones(len(before)))
    assert network.eval()(torch.randn(2, 3, 64, 64)).shape == (2, 4, 18)


def test_properties_are_reached_by_their_ids(tiny_cohort: Path, tmp_path: Path) -> None:
    assert training(tiny_cohort, tmp_path).check_properties() == []
    assert list(tmp_path.iterdir()) == []


def test_every_round_starts_from_the_same_weights_with_the_last_as_teacher(
    tiny_cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[dict[str, Tensor]] = []
    forward = IsdLoss.forward

    def recording(self: IsdLoss, *given: Any) -> dict[str, Tensor]:
        terms = forward(self, *given)
        steps.append({name: term.detach() for name, term in terms.items()})
        return terms

    monkeypatch.setattr(IsdLoss, "forward", recording)
    workflow = train(tiny_cohort, tmp_path, epochs=1, rounds=3)
    assert len(steps) == 3 * 2
    starts = steps[::2]
    assert [set(step) for step in starts] == [set(TERMS[0]), set(TERMS[1]), set(TERMS[1])]
    for step in starts[1:]:  # the very same loss as at the first step of all, before anything was learned
        assert {term: step[term] for term in TERMS[0]} == starts[0]
    assert not torch.equal(steps[1]["lm"], steps[3]["lm"])
    # Another teacher in the third round than in the second.
    assert starts[1]["rel"] != starts[2]["rel"]
    (teacher,) = workflow.parser.get_parsed_content("train#trainer").teachers
    assert equal(teacher.state_dict(), weights(tmp_path / "models" / "round1.pt"))
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())


def test_one_round_is_plain_training(tiny_cohort: Path, trained: Path, tmp_path: Path) -> None:
    train(tiny_cohort, tmp_path, rounds=1)
    assert equal(weights(tmp_path / "models" / "round0.pt"), weights(trained / "models" / "round0.pt"))
    assert history(tmp_path, 0) == history(trained, 0)
    assert not list(tmp_path.rglob("round1*"))
    assert "1 round, round 0 taken" in (tmp_path / "eval" / "training.html").read_text()


def test_more_rounds_while_they_help_and_the_best_is_taken(
    tiny_cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script_metric(monkeypatch, iter([0.2, 0.4, 0.3]))
    train(tiny_cohort, tmp_path, epochs=1, rounds=2, more_rounds=5)
    summary = json.loads((tmp_path / "eval" / "rounds.json").read_text())
    assert [row["val_ce_f1"] for row in summary["rounds"]] == [0.2, 0.4, 0.3]
    assert summary["best"] == 1
    kept = {name: weights(tmp_path / "models" / f"{name}.pt") for name in ("round1", "round2", "reporter")}
    assert equal(kept["reporter"], kept["round1"])
    assert not equal(kept["reporter"], kept["round2"])


def test_every_round_stops_early_for_itself(
    tiny_cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script_metric(monkeypatch, iter([0.5, 0.4, 0.1, 0.2, 0.2]))
    train(tiny_cohort, tmp_path, epochs=9, patience=1)
    assert [len(history(tmp_path, index)) for index in range(2)] == [2, 3]
    summary = json.loads((tmp_path / "eval" / "rounds.json").read_text())
    assert [row["epoch"] for row in summary["rounds"]] == [1, 2]
    assert summary["best"] == 0


def test_bf16_autocast_trains_with_teacher(
    tiny_cohort: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[set[torch.dtype]] = []
    forward = IsdLoss.forward

    def recording(self: IsdLoss, said: Any, taught: Any, *others: Any) -> Any:
        seen.append({part["patches"].dtype for part in (said, taught) if part is not None})
        return forward(self, said, taught, *others)

    monkeypatch.setattr(IsdLoss, "forward", recording)
    train(tiny_cohort, tmp_path, epochs=1, amp="bf16")
    assert seen == [{torch.bfloat16}] * 4
    kept = weights(tmp_path / "models" / "reporter.pt")
    assert not {torch.bfloat16, torch.float16} & {value.dtype for value in kept.values()}
    assert history(tmp_path, 0)[0]["loss"] == pytest.approx(history(trained, 0)[0]["loss"], rel=0.05)


def test_number_of_rounds_must_make_sense() -> None:
    rest: dict[str, Any] = dict.fromkeys(("prepare", "trainer", "reporter", "precision"))
    rest |= {"state": {}, "handlers": [], "ckpt_dir": ".", "output_dir": ".", "settings": TINY}
    for wrong in ({"rounds": 0}, {"more_rounds": -1}):
        with pytest.raises(ValueError, match="rounds must be at least 1 and more_rounds 0"):
            Rounds(**{**rest, **wrong})
