"""What the engines write: weights that load or say why not, exact resume, histories."""

from __future__ import annotations

import copy
import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events
from medbundles.engines import Checkpointing, EpochSeed, TermLogger
from medbundles.engines.checkpointing import load_weights, save_atomic
from torch import Tensor, nn

SCORES = (0.5, 0.9, 0.7, 0.6)  # of the validation after each epoch


class Run:
    """A linear network under training on random batches, with everything a resume needs."""

    def __init__(
        self,
        folder: Path,
        width: int = 3,
        resume: bool = True,
        scores: tuple[float, ...] = SCORES,
        **settings: Any,
    ) -> None:
        torch.manual_seed(3)
        self.network = nn.Linear(width, 1)
        optimizer = torch.optim.AdamW(self.network.parameters(), lr=0.1)
        self.scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, epochs=4, steps_per_epoch=2)

        def step(engine: Engine, batch: int) -> dict[str, Tensor]:
            optimizer.zero_grad()
            loss = (self.network(torch.rand(4, width)) - 1).square().mean()
            loss.backward()
            optimizer.step()
            self.scheduler.step()
            return {"loss": loss.detach()}

        self.trainer = Engine(step)
        self.evaluator = Engine(lambda *_: None)
        self.evaluator.add_event_handler(Events.COMPLETED, self._score, scores)
        EpochSeed(0).attach(self.trainer)
        if scores:
            self.trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda _: self.evaluator.run([0]))
        self.logger = TermLogger("net", folder, self.evaluator, progress=False)
        self.logger.attach(self.trainer)
        state = {"optimizer": optimizer, "scheduler": self.scheduler}
        self.checkpointing = Checkpointing(
            folder, "net", self.network, state, self.evaluator, "score", settings, resume
        )
        self.checkpointing.attach(self.trainer)

    def _score(self, evaluator: Engine, scores: tuple[float, ...]) -> None:
        evaluator.state.metrics["score"] = scores[self.trainer.state.epoch - 1]

    def __call__(self, stop_after: int = 0) -> list[int]:
        """Train four epochs, or die after `stop_after` of them; the epochs that ran."""
        epochs: list[int] = []

        def completed(engine: Engine) -> None:
            epochs.append(engine.state.epoch)
            if engine.state.epoch == stop_after:
                raise KeyboardInterrupt

        self.trainer.add_event_handler(Events.EPOCH_COMPLETED, completed)
        if stop_after:
            with pytest.raises(KeyboardInterrupt):
                self.trainer.run([0, 1], max_epochs=4)
        else:
            self.trainer.run([0, 1], max_epochs=4)
        return epochs


def rows(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "net_history.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("done", [1, 2, 3, 4])
def test_resumed_run_ends_with_the_same_bits(done: int, tmp_path: Path) -> None:
    whole = Run(tmp_path / "whole")
    assert whole() == [1, 2, 3, 4]
    assert Run(tmp_path / "parts")(stop_after=done) == list(range(1, done + 1))
    rest = Run(tmp_path / "parts")
    assert rest() == list(range(done + 1, 5))
    assert torch.equal(rest.network.weight, whole.network.weight)
    assert rows(tmp_path / "parts") == rows(tmp_path / "whole")
    best = [torch.load(tmp_path / name / "net.pt", weights_only=True) for name in ("parts", "whole")]
    assert torch.equal(best[0]["weight"], best[1]["weight"])
    assert (rest.checkpointing.best, rest.checkpointing.best_epoch) == (0.9, 2)
    assert not (tmp_path / "parts" / "net_resume.pt").exists()


def test_best_weights_are_those_of_the_best_epoch(tmp_path: Path) -> None:
    run = Run(tmp_path)
    weights: list[Tensor] = []
    run.trainer.add_event_handler(
        Events.EPOCH_COMPLETED, lambda _: weights.append(run.network.weight.clone())
    )
    run()
    assert torch.equal(torch.load(tmp_path / "net.pt", weights_only=True)["weight"], weights[1])


def test_a_second_run_of_the_same_trainer_has_files_and_a_best_of_its_own(tmp_path: Path) -> None:
    run = Run(tmp_path)
    begin = copy.deepcopy(run.scheduler.state_dict())
    run()
    run.scheduler.load_state_dict(begin)
    first = (tmp_path / "net.pt").read_bytes()
    run.checkpointing.restart("again")
    run.logger.restart("again")
    run.trainer.state.epoch = run.trainer.state.iteration = 0
    run()
    assert (tmp_path / "net.pt").read_bytes() == first
    assert (tmp_path / "again.pt").read_bytes() != first
    assert (run.checkpointing.best, run.checkpointing.best_epoch) == (0.9, 2)
    again = [json.loads(line) for line in (tmp_path / "again_history.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in again] == [row["epoch"] for row in rows(tmp_path)] == [1, 2, 3, 4]


@pytest.mark.parametrize("scores", [(), (float("nan"),) * 4], ids=["never validated", "undefined metric"])
def test_weights_are_kept_without_a_metric(scores: tuple[float, ...], tmp_path: Path) -> None:
    Run(tmp_path, scores=scores)()
    assert torch.load(tmp_path / "net.pt", weights_only=True)["weight"].isfinite().all()


@pytest.mark.parametrize(
    "change", [{"lr": 2}, {"width": 5}, {"resume": False}], ids=["settings", "network", "resume off"]
)
def test_run_with_other_settings_starts_anew(
    change: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Run(tmp_path, **{"lr": 1})(stop_after=2)
    with caplog.at_level(logging.WARNING):
        assert Run(tmp_path, **{"lr": 1, **change})() == [1, 2, 3, 4]
    assert ("belongs to a run with other settings" in caplog.text) == ("resume" not in change)
    assert [row["epoch"] for row in rows(tmp_path)] == [1, 2, 3, 4]


def test_unreadable_resume_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "net_resume.pt").write_bytes(b"PK\x03\x04 half a file")
    with pytest.raises(
        ValueError, match=f"resume: {tmp_path / 'net_resume.pt'} is not a readable weights file"
    ):
        Run(tmp_path)()


def test_history_holds_term_means_and_metrics(tmp_path: Path) -> None:
    run = Run(tmp_path)
    losses: list[float] = []
    run.trainer.add_event_handler(
        Events.ITERATION_COMPLETED, lambda engine: losses.append(float(engine.state.output["loss"]))
    )
    run()
    for k, row in enumerate(rows(tmp_path)):
        assert row == {
            "epoch": k + 1,
            "loss": pytest.approx(sum(losses[2 * k : 2 * k + 2]) / 2),
            "score": SCORES[k],
        }
    assert len(list((tmp_path / "tensorboard" / "net").glob("events*"))) == 1


def test_an_epoch_without_validation_repeats_no_metric(tmp_path: Path) -> None:
    trainer, evaluator = Engine(lambda *_: {"loss": 1.0}), Engine(lambda *_: None)
    evaluator.add_event_handler(Events.COMPLETED, lambda engine: engine.state.metrics.update(score=0.5))
    trainer.add_event_handler(Events.EPOCH_COMPLETED(every=2), lambda _: evaluator.run([0]))
    TermLogger("net", tmp_path, evaluator, progress=False).attach(trainer)
    trainer.run([0], max_epochs=4)
    assert ["score" in row for row in rows(tmp_path)] == [False, True, False, True]


def test_failed_save_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    save_atomic({"weight": torch.ones(2)}, path)
    with pytest.raises(Exception, match="pickle"):
        save_atomic({"weight": lambda: None}, path)
    assert torch.equal(torch.load(path, weights_only=True)["weight"], torch.ones(2))
    assert [file.name for file in tmp_path.iterdir()] == ["net.pt"]


def test_load_weights_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"teacher: no file {tmp_path / 'net.pt'}"):
        load_weights(nn.Linear(3, 2), tmp_path / "net.pt", "teacher")


@pytest.mark.parametrize("keep", [0.0, 0.5])
def test_load_weights_truncated_file(keep: float, tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    save_atomic(nn.Linear(30, 20).state_dict(), path)
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    with pytest.raises(ValueError, match=f"student: {path} is not a readable weights file"):
        load_weights(nn.Linear(30, 20), path, "student")


@pytest.mark.parametrize("content", [[torch.ones(2)], {"model": {"weight": torch.ones(2)}}])
def test_load_weights_of_something_else(content: Any, tmp_path: Path) -> None:
    save_atomic(content, tmp_path / "net.pt")
    with pytest.raises(ValueError, match="must hold one raw state dict of tensors, got"):
        load_weights(nn.Linear(3, 2), tmp_path / "net.pt")


def test_load_weights_refuses_code(tmp_path: Path) -> None:
    torch.save(
        nn.Linear(3, 2), tmp_path / "net.pt"
    )  # a pickled module, which only full unpickling would load
    with pytest.raises(ValueError, match="is not a readable weights file"):
        load_weights(nn.Linear(3, 2), tmp_path / "net.pt")


def test_load_weights_of_another_architecture(tmp_path: Path) -> None:
    save_atomic(nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2)).state_dict(), tmp_path / "net.pt")
    network = nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(2))
    before = network[0].weight.clone()
    with pytest.raises(ValueError, match="is of another architecture; 5 keys differ") as raised:
        load_weights(network, tmp_path / "net.pt")
    assert "0.weight must be (2, 4), got (2, 3)" in str(raised.value)
    assert "missing 1.running_mean" in str(raised.value)
    assert torch.equal(network[0].weight, before)
