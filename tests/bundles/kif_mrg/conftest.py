"""Fixtures of inference and training: cohorts, an untrained reporter, a finished training run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from kif_inference_runs import small_cohort, untrained
from kif_training_runs import make_cohort, train


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_cohort(tmp_path_factory.mktemp("cohort"))


@pytest.fixture(scope="session")
def models(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return untrained(cohort, tmp_path_factory.mktemp("models"))


@pytest.fixture
def folder(cohort: Path, tmp_path: Path) -> Path:
    """Three of the cohort's images in a folder of their own, one below another folder."""
    images = tmp_path / "images"
    for source, name in (("train00000", "a.png"), ("train00001", "b.PNG"), ("test00000", "deep/c.png")):
        (images / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(cohort / "images" / source / "0.png", images / name)
    return images


@pytest.fixture(scope="session")
def tiny_cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_cohort(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def trained(tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output folder of an uninterrupted run: two rounds of two epochs."""
    out = tmp_path_factory.mktemp("trained")
    train(tiny_cohort, out, figures=True)
    return out
