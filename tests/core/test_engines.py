"""The distillation trainer and its guards: frozen teachers, named terms, early stop, bad losses, seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from medbundles.engines import (
    DistillationTrainer,
    EarlyStop,
    EpochSeed,
    NonFiniteLossError,
    check_finite,
    freeze,
)
from medbundles.precision import Precision
from torch import Tensor, nn

Terms = Callable[[nn.Module, dict[str, Any], Engine], dict[str, Tensor]]
BATCHES = [{"image": torch.full((2, 3), float(k)), "scan_id": ["a", "b"]} for k in range(1, 4)]


def to_teacher(teacher: nn.Module) -> Terms:
    def terms(network: nn.Module, batch: dict[str, Any], engine: Engine) -> dict[str, Tensor]:
        difference = network(batch["image"]) - teacher(batch["image"])
        return {"near": difference.square().mean(), "small": 0.1 * network.weight.square().sum()}

    return terms


def make_trainer(terms: Terms | None = None, epochs: int = 2, **options: Any) -> DistillationTrainer:
    student, teacher = nn.Linear(3, 2), nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    optimizer = torch.optim.SGD(student.parameters(), lr=0.01)
    return DistillationTrainer(
        Precision("cpu", "off"), epochs, BATCHES, student, optimizer, terms or to_teacher(teacher),
        teachers=[teacher], **options,
    )  # fmt: skip


def evaluator_of(values: list[float]) -> Engine:
    """An engine whose run ends with the next value as the metric `score`."""
    remaining: Iterator[float] = iter(values)
    evaluator = Engine(lambda engine, batch: None)
    evaluator.add_event_handler(
        Events.EPOCH_COMPLETED, lambda engine: engine.state.metrics.update(score=next(remaining))
    )
    return evaluator


def test_teachers_are_frozen_and_unchanged() -> None:
    trainer = make_trainer()
    (teacher,) = trainer.teachers
    before = {key: value.clone() for key, value in teacher.state_dict().items()}
    teacher.train()  # whatever a caller does, every epoch puts it back
    trainer.run()
    assert not teacher.training
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
    assert all(torch.equal(value, before[key]) for key, value in teacher.state_dict().items())
    assert trainer.network.training


def test_loss_is_the_sum_of_the_terms_and_falls() -> None:
    trainer = make_trainer(epochs=5)
    seen: list[dict[str, Tensor]] = []
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: seen.append(engine.state.output))
    trainer.run()
    for output in seen:
        torch.testing.assert_close(output["loss"], output["near"] + output["small"])
        assert not output["loss"].requires_grad
    assert seen[-1]["loss"] < seen[2]["loss"]


def test_scheduler_is_stepped_every_iteration() -> None:
    trainer = make_trainer()
    trainer.lr_scheduler = torch.optim.lr_scheduler.StepLR(trainer.optimizer, step_size=1, gamma=0.5)
    trainer.run()
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(0.01 / 2**6)


def test_forward_wraps_the_network_that_trains() -> None:
    class View(nn.Module):
        def __init__(self, network: nn.Module) -> None:
            super().__init__()
            self.network = network

    views: list[nn.Module] = []

    def terms(view: Any, batch: dict[str, Any], engine: Engine) -> dict[str, Tensor]:
        views.append(view)
        return {"all": view.network(batch["image"]).square().mean()}

    trainer = make_trainer(terms, forward=View)
    before = trainer.network.weight.detach().clone()
    trainer.run()
    assert all(isinstance(view, View) and view.network is trainer.network for view in views)
    assert not torch.equal(trainer.network.weight, before)


def test_non_finite_loss_names_epoch_iteration_and_terms() -> None:
    def terms(network: nn.Module, batch: dict[str, Any], engine: Engine) -> dict[str, Tensor]:
        nan = float("nan") if engine.state.iteration == 5 else 0.0
        return {"good": network(batch["image"]).square().mean(), "bad": network.weight.sum() * nan}

    trainer = make_trainer(terms)
    weights: list[Tensor] = []
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED, lambda _: weights.append(trainer.network.weight.clone())
    )
    with pytest.raises(NonFiniteLossError, match="bad=nan in epoch 2, iteration 5") as raised:
        trainer.run()
    assert "good=" in str(raised.value)
    assert "Lower the learning rate" in str(raised.value)
    assert len(weights) == 4
    assert torch.equal(trainer.network.weight, weights[-1])


def test_non_finite_gradient_stops_before_it_reaches_the_weights() -> None:
    def terms(network: nn.Module, batch: dict[str, Any], engine: Engine) -> dict[str, Tensor]:
        return {"root": (network.weight - network.weight.detach()).abs().sqrt().sum()}

    trainer = make_trainer(terms)
    before = trainer.network.weight.detach().clone()
    with pytest.raises(NonFiniteLossError, match="gradient_norm=nan"):
        trainer.run()
    assert torch.equal(trainer.network.weight, before)


def test_finite_terms_pass() -> None:
    check_finite({"a": torch.tensor(1.0), "b": torch.tensor(-3e38)}, Engine(lambda *_: None))


def test_freeze_returns_the_module_in_eval_mode() -> None:
    module = nn.Dropout()
    assert freeze(module) is module
    assert not module.training


@pytest.mark.parametrize(
    ("values", "patience", "min_delta", "epochs"),
    [
        ([0.5, 0.6, 0.6, 0.55, 0.7], 2, 0.0, 4),
        ([0.5, 0.4, 0.6, 0.5, 0.5], 2, 0.0, 5),
        ([0.5, 0.51, 0.52, 0.53, 0.54], 2, 0.05, 3),
        ([0.5, 0.4, 0.3, 0.2, 0.1], 0, 0.0, 5),
        ([float("nan")] * 5, 3, 0.0, 3),
    ],
)
def test_early_stop(values: list[float], patience: int, min_delta: float, epochs: int) -> None:
    trainer, evaluator = Engine(lambda engine, batch: None), evaluator_of(values)
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda _: evaluator.run([0]))
    EarlyStop(evaluator, "score", patience, min_delta).attach(trainer)
    assert trainer.run([0], max_epochs=5).epoch == epochs


class Recorder:
    """Stands for a sampler and a transform: notes what it is told."""

    def __init__(self) -> None:
        self.epochs: list[int] = []
        self.seeds: list[int] = []

    def set_epoch(self, epoch: int) -> None:
        self.epochs.append(epoch)

    def set_random_state(self, seed: int) -> None:
        self.seeds.append(seed)


def test_draws_of_an_epoch_depend_on_seed_and_epoch_alone() -> None:
    def draws(seed: int, done: int = 0) -> tuple[list[tuple[float, float]], Recorder]:
        found: list[tuple[float, float]] = []
        engine = Engine(lambda *_: found.append((float(torch.rand(1)), float(np.random.rand()))))  # noqa: NPY002
        recorder = Recorder()
        EpochSeed(seed, (recorder,)).attach(engine)
        engine.add_event_handler(Events.STARTED, lambda engine: setattr(engine.state, "epoch", done))
        engine.run([0, 0], max_epochs=3)
        return found, recorder

    whole, told = draws(7)
    torch.rand(5)  # what was drawn before does not matter
    resumed, told_again = draws(7, done=1)
    assert resumed == whole[2:]
    assert len(set(whole)) == len(whole)
    assert not set(draws(8)[0]) & set(whole)
    assert told.epochs == [1, 2, 3]
    assert told_again.epochs == [2, 3]
    assert told_again.seeds == told.seeds[1:]


def test_accumulated_batches_move_the_weights_as_one_batch_of_both() -> None:
    def mean_square(network: nn.Module, batch: dict[str, Any], engine: Engine) -> dict[str, Tensor]:
        return {"square": network(batch["image"]).square().mean()}

    rows = torch.randn(4, 3)
    halves = [{"image": rows[:2]}, {"image": rows[2:]}]
    weights = []
    for batches, accumulate in ((halves, 2), ([{"image": rows}], 1)):
        torch.manual_seed(0)
        student = nn.Linear(3, 2)
        optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
        DistillationTrainer(
            Precision("cpu", "off"), 3, batches, student, optimizer, mean_square, accumulate=accumulate
        ).run()
        weights.append(student.weight.detach())
    torch.testing.assert_close(*weights)


def test_the_last_batch_of_an_epoch_moves_the_weights_and_none_is_carried_over() -> None:
    steps: list[int] = []
    trainer = make_trainer(epochs=2, accumulate=2, clip=None)  # three batches: two, then one
    step = trainer.optimizer.step
    trainer.optimizer.step = lambda *_: (steps.append(trainer.state.iteration), step())[1]  # type: ignore[method-assign]
    trainer.run()
    assert steps == [2, 3, 5, 6]


def test_accumulate_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="accumulate must be at least 1, got accumulate=0"):
        make_trainer(accumulate=0)
