"""One training step of teacher and student: availability, modality dropout, where gradients go."""

from __future__ import annotations

from typing import Any

import torch
from medbundles.engines import DistillationTrainer
from medbundles.precision import Precision
from react_kd.losses import ReactLoss
from react_kd.networks import Teacher
from react_kd.workflow import student_availability, student_trainer, teacher_availability, teacher_trainer
from react_tiny_networks import BOTH, CT, PET, SWIN, make_batch, make_student
from torch import Tensor


def test_modality_dropout_rates_and_never_both() -> None:
    n, dropout, share = 10_000, 0.3, 0.8
    batch = {"pet_available": torch.ones(n, 2, dtype=torch.bool)}
    kept = student_availability(batch, dropout, share)
    assert kept.any(dim=1).all()
    for lost, p in ((~kept[:, 1], dropout * share), (~kept[:, 0], dropout * (1 - share))):
        assert abs(int(lost.sum()) - n * p) < 4 * (n * p * (1 - p)) ** 0.5
    assert batch["pet_available"].all()


def test_modality_dropout_takes_nothing_from_cases_with_ct_alone() -> None:
    batch = {"pet_available": torch.tensor([[False, False], [True, False], [False, True]])}
    assert student_availability(batch).tolist() == [CT, BOTH, BOTH]
    assert student_availability(batch, dropout=1.0, drop_pet_share=0.0).tolist() == [CT, PET, PET]
    assert student_availability(batch, dropout=1.0, drop_pet_share=1.0).tolist() == [CT, CT, CT]


def test_teacher_stream_dropout_always_keeps_a_stream() -> None:
    tracers = torch.rand(10_000, 2) < 0.5
    kept = teacher_availability({"pet_available": tracers}, dropout=0.6)
    assert kept.any(dim=1).all()
    assert not (kept[:, :2] & ~tracers).any()
    n, seen = int(tracers[:, 0].sum()), int(kept[:, 0].sum())
    assert abs(seen - 0.4 * n) < 4 * (n * 0.24) ** 0.5
    assert teacher_availability({"pet_available": tracers}).tolist() == [
        [*row, True] for row in tracers.tolist()
    ]


class StudentRun:
    """One step of the student's trainer, with what teacher and student were asked and said."""

    def __init__(self, dropout: float, share: float = 1.0) -> None:
        torch.manual_seed(1)
        self.student, self.teacher = make_student(), Teacher(3, 8, SWIN, dropout=0.5)
        self.batch = make_batch()
        self.teacher_before = {key: value.clone() for key, value in self.teacher.state_dict().items()}
        self.student_before = {key: value.clone() for key, value in self.student.state_dict().items()}
        self.learned: dict[str, Tensor] = {}
        self.taught: dict[str, Tensor] = {}
        loss = ReactLoss()

        def recording(learned: Any, taught: Any, batch: Any, epoch: int) -> dict[str, Tensor]:
            self.learned, self.taught = learned, taught
            return loss(learned, taught, batch, epoch)

        self.trainer: DistillationTrainer = student_trainer(
            Precision("cpu", "off"), 1, [self.batch], self.student, self.teacher,
            torch.optim.SGD(self.student.parameters(), lr=0.1), recording,  # type: ignore[arg-type]
            modality_dropout=dropout, drop_pet_share=share,
        )  # fmt: skip
        self.trainer.run()


def test_gradients_reach_the_whole_student_and_no_teacher() -> None:
    run = StudentRun(dropout=0.0)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in run.student.parameters())
    after = run.student.state_dict()
    assert [key for key, value in run.student_before.items() if torch.equal(value, after[key])] == []
    assert all(p.grad is None for p in run.teacher.parameters())
    assert all(torch.equal(value, run.teacher_before[key]) for key, value in run.teacher.state_dict().items())
    assert not run.teacher.training


def test_student_dropout_leaves_the_teacher_alone() -> None:
    runs = [StudentRun(dropout) for dropout in (0.0, 1.0)]
    assert all(torch.equal(runs[0].taught[key], runs[1].taught[key]) for key in runs[0].taught)
    assert not torch.allclose(runs[0].learned["logits"], runs[1].learned["logits"])
    alone = make_student()
    alone.load_state_dict(runs[1].student_before)
    torch.testing.assert_close(runs[1].learned["logits"], alone(runs[1].batch["image"]))


def test_gradients_reach_the_whole_teacher() -> None:
    teacher = Teacher(3, 8, SWIN)
    optimizer = torch.optim.SGD(teacher.parameters(), lr=0.1)
    teacher_trainer(Precision("cpu", "off"), 1, [make_batch()], teacher, optimizer, stream_dropout=0.0).run()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in teacher.parameters())
