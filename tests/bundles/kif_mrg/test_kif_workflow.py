"""One step of training: what decays, how fast, and which terms there are."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from kif_mrg.conditions import IGNORE
from kif_mrg.losses import IsdLoss
from kif_mrg.prior import ClassPrior
from kif_mrg.workflow import parameter_groups, reporter_trainer, warmup_cosine
from kif_tiny_reporter import CONDITIONS, make_batch, make_reporter, padded
from medbundles.precision import Precision
from torch import Tensor, nn

CPU = Precision("cpu", "off")


def test_matrices_decay_and_vectors_do_not() -> None:
    reporter = make_reporter()
    decayed, plain = parameter_groups(reporter, 0.05)
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.05, 0.0)
    assert {p.ndim for p in decayed["params"]} == {2, 4}
    assert {p.ndim for p in plain["params"]} == {1}
    given = [id(p) for group in (decayed, plain) for p in group["params"]]
    assert sorted(given) == sorted(id(p) for p in reporter.parameters() if p.requires_grad)
    assert len(given) < len(list(reporter.parameters()))  # the aggregator has frozen weights


def rates(epochs: int, per_epoch: int, kind: str, lr: float = 5e-5) -> list[float]:
    """Learning rate of every step of a run, and the one it ends with."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)
    scheduler = warmup_cosine(optimizer, epochs, range(per_epoch), kind)
    found = []
    for _ in range(epochs * per_epoch + 1):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def test_rate_rises_in_a_twentieth_of_the_run_and_falls_to_a_tenth() -> None:
    found = rates(4, 50, "steps")
    assert found[:10] == pytest.approx([5e-6 * (step + 1) for step in range(10)])
    assert found[10:] == sorted(set(found[10:]), reverse=True)
    assert found[10] == pytest.approx(5e-5)
    assert found[10 + 95] == pytest.approx(5e-5 * 0.55)  # half-way down the cosine
    assert found[-1] == pytest.approx(5e-6)


def test_warm_up_is_never_longer_than_2000_steps() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    (share,) = warmup_cosine(optimizer, 10, range(16_000)).lr_lambdas
    assert share(1998) == pytest.approx(0.9995)
    assert share(1999) == share(2000) == 1.0
    assert share(2001) < 1.0


def test_authors_schedule() -> None:
    found = rates(10, 129, "authors")  # 129 steps an epoch: Indiana University X-Ray at batch 16
    assert found[0] == pytest.approx(5e-7)
    assert found[128] == pytest.approx(3.7e-6, rel=0.01)
    by_epoch = [found[epoch * 129 : (epoch + 1) * 129] for epoch in range(1, 10)]
    assert all(len(set(epoch)) == 1 for epoch in by_epoch)
    assert by_epoch[0][0] == pytest.approx(4.57e-5, abs=5e-8)
    assert by_epoch[-1][0] == pytest.approx(5e-6)
    with pytest.raises(ValueError, match="lr_schedule must be 'steps' or 'authors', got 'linear'"):
        rates(1, 1, "linear")


class Step:
    """One step of the trainer, with what the loss was given."""

    def __init__(self, taught: bool, **options: Any) -> None:
        torch.manual_seed(1)
        self.reporter, self.teacher = make_reporter(loose=True), make_reporter(loose=True)
        image, memory, labels = make_batch(4)
        labels = torch.where(labels < 0, IGNORE, labels)
        tokens = padded(self.reporter.tokenizer)
        self.batch = {"image": image, "memory": memory, "labels": labels, "tokens": tokens}
        self.before = {key: value.clone() for key, value in self.teacher.state_dict().items()}
        self.prior = ClassPrior(CONDITIONS, torch.full((CONDITIONS,), 0.5))
        self.given: tuple[Any, ...] = ()
        loss = IsdLoss(self.reporter.tokenizer.pad_id)

        def recording(*given: Any) -> dict[str, Tensor]:
            self.given = given
            return loss(*given)

        optimizer = torch.optim.SGD(self.reporter.parameters(), lr=0.1)
        trainer = reporter_trainer(
            CPU, 1, [self.batch], self.reporter, recording, self.prior, optimizer, **options  # type: ignore[arg-type]
        )  # fmt: skip
        trainer.teachers = [self.teacher.train()] if taught else []
        trainer.run()
        self.terms: Any = trainer.state.output


def test_distillation_terms_come_with_a_teacher_alone() -> None:
    alone, taught = Step(False), Step(True)
    assert set(alone.terms) == {"loss", "lm", "cls"}
    assert alone.given[1] is None
    assert set(taught.terms) == {"loss", "lm", "cls", "seq", "rel"}
    assert all(taught.terms[term] > 0 for term in taught.terms)
    assert all(taught.terms[term] == alone.terms[term] for term in ("lm", "cls"))
    torch.testing.assert_close(taught.given[3], taught.prior.log_prior)


def test_teacher_reads_the_same_prompt_and_stays_as_it_was() -> None:
    step = Step(True)
    teacher, given = step.teacher, CPU.batch(step.batch)
    assert not any(module.training for module in teacher.modules())
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
    assert all(torch.equal(value, step.before[key]) for key, value in teacher.state_dict().items())
    with torch.no_grad():
        expected = teacher(given["image"], given["memory"], given["labels"], given["tokens"])
    for key, value in step.given[1].items():
        assert not value.requires_grad
        torch.testing.assert_close(value, expected[key])


def test_gradients_reach_the_whole_reporter_and_are_clipped_by_value() -> None:
    step = Step(True, clip=0.01, clip_by="value")
    trained = [p for p in step.reporter.parameters() if p.requires_grad]
    largest = [float(p.grad.abs().max()) for p in trained if p.grad is not None]
    assert len(largest) == len(trained)
    assert min(largest) > 0
    assert max(largest) == pytest.approx(0.01)
