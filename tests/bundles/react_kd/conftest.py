"""Fixtures shared by the tests of training: one tiny simulated cohort, one finished run on it."""

from __future__ import annotations

from pathlib import Path

import pytest
from react_kd.phantom import simulated_cohort
from react_training_runs import COHORT, train


@pytest.fixture(scope="session")
def tiny_cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cohort") / "simulated"
    return Path(simulated_cohort(folder, sizes=COHORT, generate=True))


@pytest.fixture(scope="session")
def trained(tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output folder of an uninterrupted run: two epochs of the teacher, three of the student."""
    out = tmp_path_factory.mktemp("trained")
    train(tiny_cohort, out)
    return out
