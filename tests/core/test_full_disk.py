"""A disk that fills up while a checkpoint is written: a clear error, and the old checkpoint still whole."""

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from medbundles.engines.checkpointing import load_weights, save_atomic


@pytest.fixture
def tiny_disk() -> Iterator[None]:
    """No file of this process may grow past 20 kB, which write calls report as they do a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("tiny_disk")
def test_a_full_disk_names_the_file_and_keeps_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    network = torch.nn.Linear(4, 4)
    save_atomic(network.state_dict(), path)
    before = path.read_bytes()
    with pytest.raises(OSError, match=r"cannot write .*model\.pt"):
        save_atomic({"weight": torch.zeros(100_000)}, path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["model.pt"]
    load_weights(network, path)
