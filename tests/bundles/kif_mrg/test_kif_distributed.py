"""Training in two processes: torchrun, gloo, the overlay multi_gpu_train.json."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from kif_training_runs import BUNDLE, TINY, equal, history, weights

CONFIGS = BUNDLE / "configs"


@pytest.fixture(scope="module")
def two_processes(tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output folder of a run in two processes; every rank leaves what it trained with."""
    out = tmp_path_factory.mktemp("two")
    items = json.loads((CONFIGS / "multi_gpu_train.json").read_text())["training"]
    # The reporter itself is read from a file by all in the end; what led there has to agree without that.
    probe = (
        "$torch.save({'optimizer': @optimizer.state_dict(), 'prior': @prior.prior, "
        "'metrics': dict(@validate#evaluator.state.metrics)}, "
        "@output_dir + '/rank' + os.environ['RANK'] + '.pt')"
    )
    items.insert(items.index("$@stages.run()") + 1, probe)
    (out / "probe.json").write_text(json.dumps({"training": items}))
    configs = [
        str(path) for path in (CONFIGS / "train.json", CONFIGS / "multi_gpu_train.json", out / "probe.json")
    ]
    settings = {**TINY, "epochs": 1, "batch_size": 2, "dataset_dir": str(tiny_cohort)}
    settings |= {"ckpt_dir": str(out / "models"), "output_dir": str(out / "eval"), "bundle_root": str(BUNDLE)}
    (out / "settings.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command += ["-m", "monai.bundle", "run", "training", "--config_file", str(configs)]
    command += ["--args_file", str(out / "settings.json")]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "MEDBUNDLES_CACHE": str(tiny_cohort.parent / "cache"),
    }
    run = subprocess.run(command, env=environment, cwd=out, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr[-4000:]
    return out


def test_ranks_agree_without_reading_a_file(two_processes: Path) -> None:
    first, second = (weights(two_processes / "eval" / f"rank{rank}.pt") for rank in range(2))
    # Equal moments of all gradients, and the same diagnoses of the validation cases.
    moments = [rank["optimizer"]["state"] for rank in (first, second)]
    assert len(moments[0]) > 100
    assert all(equal(moments[0][key], moments[1][key]) for key in moments[0])
    assert torch.equal(first["prior"], second["prior"])
    assert first["metrics"] == second["metrics"]


def test_one_rank_writes(two_processes: Path) -> None:
    assert {path.name for path in (two_processes / "models").glob("*.pt")} == {
        "round0.pt", "round1.pt", "reporter.pt", "model.pt",
    }  # fmt: skip
    for index in range(2):
        rows = history(two_processes, index)
        assert [row["epoch"] for row in rows] == [1]
        assert ("seq" in rows[0]) == (index == 1)
        events = two_processes / "eval" / "tensorboard" / f"round{index}"
        assert len(list(events.glob("events*"))) == 1
    state = weights(two_processes / "models" / "reporter.pt")
    assert all(value.isfinite().all() for value in state.values())
    assert (two_processes / "eval" / "training.html").is_file()
    assert not (two_processes / "models" / "rounds.json").exists()
