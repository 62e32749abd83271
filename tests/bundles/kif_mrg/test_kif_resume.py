"""A run that is killed and run again ends exactly as one that was left alone, and never mixes two runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kif_mrg import training_report
from kif_mrg.losses import IsdLoss
from kif_mrg.rounds import Rounds
from kif_tiny_reporter import bert_folder
from kif_training_runs import Interruption, equal, history, interrupted, train, weights
from medbundles.engines import Checkpointing, NonFiniteLossError


@pytest.fixture
def epochs_done(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Every (round, epoch) whose resume file is written, over all runs of a test."""
    done: list[tuple[str, int]] = []
    save = Checkpointing._save

    def recording(self: Checkpointing, trainer: Any) -> None:
        save(self, trainer)
        done.append((self.best_path.stem, trainer.state.epoch))

    monkeypatch.setattr(Checkpointing, "_save", recording)
    return done


@pytest.fixture
def killed(tiny_cohort: Path, tmp_path: Path, epochs_done: list[tuple[str, int]]) -> Callable[..., Path]:
    """`killed(round, epoch)`: the output folder of a run that ends when that epoch should be written."""

    def run(index: int, epoch: int, **overrides: Any) -> Path:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Checkpointing, "_save", interrupted(index, epoch))
            with pytest.raises(Interruption):
                train(tiny_cohort, tmp_path, **overrides)
        return tmp_path

    return run


def fail_in_round_1(tiny_cohort: Path, out: Path) -> None:
    """Run until the relation term, which only a student with a teacher has, is not a number."""
    forward = IsdLoss.forward

    def failing(self: IsdLoss, *given: Any) -> Any:
        terms = forward(self, *given)
        return {**terms, "rel": terms["rel"] * float("nan")} if "rel" in terms else terms

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(IsdLoss, "forward", failing)
        with pytest.raises(NonFiniteLossError, match="rel=nan"):
            train(tiny_cohort, out)


def test_interrupted_run_ends_like_an_uninterrupted_one(
    tiny_cohort: Path, trained: Path, epochs_done: list[tuple[str, int]], killed: Callable[..., Path]
) -> None:
    # Within round 0, between the rounds by a loss that is not finite, and within round 1.
    out = killed(0, 2)
    fail_in_round_1(tiny_cohort, out)
    killed(1, 2)
    train(tiny_cohort, out)
    assert epochs_done == [("round0", 1), ("round0", 2), ("round1", 1), ("round1", 2)]
    names = {path.name for path in (trained / "models").iterdir()}
    assert {path.name for path in (out / "models").iterdir()} == names
    for name in ("round0", "round1", "reporter", "model"):
        assert equal(weights(out / "models" / f"{name}.pt"), weights(trained / "models" / f"{name}.pt"))
    assert [history(out, index) for index in range(2)] == [history(trained, index) for index in range(2)]
    summaries = [json.loads((folder / "eval" / "rounds.json").read_text()) for folder in (out, trained)]
    assert summaries[0] == summaries[1]


ONCE: dict[str, Any] = {"epochs": 1, "rounds": 1}
LAST_MOMENTS: dict[str, tuple[Any, str, int]] = {
    "before the round is recorded": (Rounds, "_result", 2),
    "while the page is written": (training_report, "write_training_report", 1),
}


@pytest.mark.parametrize("moment", LAST_MOMENTS.values(), ids=list(LAST_MOMENTS))
def test_run_killed_at_the_end_of_its_round(
    moment: tuple[Any, str, int], tiny_cohort: Path, tmp_path: Path, epochs_done: list[tuple[str, int]]
) -> None:
    owner, name, rounds_trained = moment

    def interrupt(*_: Any) -> None:
        raise Interruption

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, interrupt)
        with pytest.raises(Interruption):
            train(tiny_cohort, tmp_path, **ONCE)
    train(tiny_cohort, tmp_path, **ONCE)
    assert epochs_done == [("round0", 1)] * rounds_trained
    kept = [weights(tmp_path / "models" / f"{name}.pt") for name in ("round0", "reporter")]
    assert equal(*kept)
    assert (tmp_path / "eval" / "training.html").is_file()
    # What is finished is no interrupted run: another one begins anew.
    train(tiny_cohort, tmp_path, **ONCE)
    assert len(epochs_done) == rounds_trained + 1


OTHER: dict[str, dict[str, Any]] = {
    "settings": {"weights#temperature": 2.0},
    "sizes that no setting names": {"reporter#ff": 24},
    "no wish to resume": {"resume": False},
}


@pytest.mark.parametrize("change", OTHER.values(), ids=list(OTHER))
def test_other_settings_start_anew(
    change: dict[str, Any], epochs_done: list[tuple[str, int]], killed: Callable[..., Path]
) -> None:
    killed(1, 1, epochs=1)
    killed(1, 1, epochs=1, **change)
    assert epochs_done == [("round0", 1)] * 2


def test_equal_settings_do_not_start_anew(
    epochs_done: list[tuple[str, int]], killed: Callable[..., Path]
) -> None:
    for _ in range(2):
        killed(1, 1, epochs=1)
    assert epochs_done == [("round0", 1)]


def test_lost_weights_of_a_finished_round_start_anew(
    epochs_done: list[tuple[str, int]], killed: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    out = killed(1, 1, epochs=1)
    (out / "models" / "round0.pt").unlink()
    killed(1, 1, epochs=1)
    assert epochs_done == [("round0", 1)] * 2
    assert "training starts anew: round 0: no file" in caplog.text


def test_other_reports_under_the_same_path_start_anew(
    tiny_cohort: Path, tmp_path: Path, epochs_done: list[tuple[str, int]], killed: Callable[..., Path]
) -> None:
    content = json.loads((tiny_cohort / "annotation.json").read_text())
    annotation = tmp_path / "annotation.json"
    places = {"annotation": str(annotation), "image_dir": str(tiny_cohort / "images"), "epochs": 2}
    for _ in range(2):
        annotation.write_text(json.dumps(content))
        killed(0, 2, **places)
        # The same words as often as before, so that every size stays what it was.
        first, second = content["train"][:2]
        first["report"], second["report"] = second["report"], first["report"]
    assert epochs_done == [("round0", 1)] * 2


def test_another_decoder_under_the_same_path_starts_anew(
    tmp_path: Path, epochs_done: list[tuple[str, int]], killed: Callable[..., Path]
) -> None:
    digest = {"_target_": "kif_mrg.decoder.decoder_digest", "decoder": "@decoder"}
    folder = bert_folder(tmp_path / "bert")
    given = {"decoder": str(folder), "tokenizer_source": str(folder), "settings#decoder": digest}
    for _ in range(2):
        killed(0, 2, **given)
    assert epochs_done == [("round0", 1)]
    bert_folder(folder)  # the same sizes and words, other weights
    killed(0, 2, **given)
    assert epochs_done == [("round0", 1)] * 2
