"""A training run that is killed and run again ends exactly as one that was left alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from medbundles.engines import Checkpointing
from react_training_runs import equal, history, interrupted, train, weights


class Interruption(Exception):
    """Stands for whatever ends a run from outside."""


def interrupt() -> None:
    raise Interruption


@pytest.fixture
def epochs_done(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Every (network, epoch) whose resume file is written, over all runs of a test."""
    done: list[tuple[str, int]] = []
    save = Checkpointing._save

    def recording(self: Checkpointing, trainer: Any) -> None:
        save(self, trainer)
        done.append((self.best_path.stem, trainer.state.epoch))

    monkeypatch.setattr(Checkpointing, "_save", recording)
    return done


def test_interrupted_run_ends_like_an_uninterrupted_one(
    tiny_cohort: Path,
    trained: Path,
    tmp_path: Path,
    epochs_done: list[tuple[str, int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Within the teacher's second epoch, between teacher and student, and in the student's last epoch.
    for name, epoch in (("teacher", 2), ("model", 1), ("model", 3)):
        with monkeypatch.context() as patch:
            patch.setattr(Checkpointing, "_save", interrupted(name, epoch, interrupt))
            with pytest.raises(Interruption):
                train(tiny_cohort, tmp_path)
    train(tiny_cohort, tmp_path)
    assert epochs_done == [("teacher", 1), ("teacher", 2), ("model", 1), ("model", 2), ("model", 3)]
    assert_same_outcome(tmp_path, trained)


def test_process_killed_with_sigkill_is_resumed(tiny_cohort: Path, trained: Path, tmp_path: Path) -> None:
    teacher = str(trained / "models" / "teacher.pt")
    program = f"""
import os, signal
from pathlib import Path
from medbundles.engines import Checkpointing
from react_training_runs import interrupted, train
Checkpointing._save = interrupted("model", 2, lambda: os.kill(os.getpid(), signal.SIGKILL))
train(Path({str(tiny_cohort)!r}), Path({str(tmp_path)!r}), teacher_checkpoint={teacher!r})
"""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent)}
    killed = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert (tmp_path / "models" / "model_resume.pt").is_file()
    train(tiny_cohort, tmp_path, teacher_checkpoint=teacher)
    assert_same_outcome(tmp_path, trained, {"model": "student"})


def assert_same_outcome(out: Path, reference: Path, stages: dict[str, str] | None = None) -> None:
    for name, stage in (stages or {"teacher": "teacher", "model": "student"}).items():
        assert equal(weights(out / "models" / f"{name}.pt"), weights(reference / "models" / f"{name}.pt"))
        assert history(out, stage) == history(reference, stage)
    assert {path.name for path in (out / "models").iterdir()} <= {"teacher.pt", "model.pt"}
