"""Fixtures of all tests: fixed seeds, one torch thread, an empty cache on request, real samples or a skip."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from medbundles.samples import fetch, sample_path


def pytest_configure() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeds() -> None:
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - library code under test may use the global generator
    torch.manual_seed(0)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder of this test alone."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("MEDBUNDLES_CACHE", str(folder))
    return folder


@pytest.fixture
def sample() -> Callable[[str], Path]:
    """`sample(name)`: the folder of a fetched sample, else a skip; with MEDBUNDLES_FETCH=1 it is fetched."""

    def get(name: str) -> Path:
        if os.environ.get("MEDBUNDLES_FETCH") == "1":
            return fetch(name)
        folder = sample_path(name)
        if folder is None:
            pytest.skip(
                f"sample {name} is not fetched (medbundles samples fetch {name}, or MEDBUNDLES_FETCH=1)"
            )
        return folder

    return get
