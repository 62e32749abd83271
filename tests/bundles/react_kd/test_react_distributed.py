"""Training in two processes: torchrun, gloo, the overlay multi_gpu_train.json."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from react_training_runs import BUNDLE, TINY, equal, history, weights

CONFIGS = BUNDLE / "configs"


@pytest.fixture(scope="module")
def two_processes(tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output folder of a run in two processes; every rank leaves its weights as they are after training."""
    out = tmp_path_factory.mktemp("two")
    items = json.loads((CONFIGS / "multi_gpu_train.json").read_text())["training"]
    probe = "$torch.save(@network.state_dict(), @output_dir + '/rank' + os.environ['RANK'] + '.pt')"
    # Stages.run, taken apart to look at the weights before the best ones are loaded for the summary.
    at = items.index("$@stages.run()")
    items[at : at + 1] = ["$@stages.run_teacher()", "$@train#trainer.run()", probe, "$@stages.summarise()"]
    (out / "probe.json").write_text(json.dumps({"training": items}))
    configs = [
        str(path) for path in (CONFIGS / "train.json", CONFIGS / "multi_gpu_train.json", out / "probe.json")
    ]
    settings = {**TINY, "epochs": 1, "teacher_epochs": 1, "batch_size": 2, "ungraded_ratio": 0.5}
    settings |= {"dataset_dir": str(tiny_cohort), "bundle_root": str(BUNDLE)}
    settings |= {"ckpt_dir": str(out / "models"), "output_dir": str(out / "eval")}
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


def test_all_ranks_end_with_the_same_weights(two_processes: Path) -> None:
    ranks = [weights(two_processes / "eval" / f"rank{rank}.pt") for rank in range(2)]
    assert equal(*ranks)
    assert all(value.isfinite().all() for value in ranks[0].values())


def test_one_rank_writes(two_processes: Path) -> None:
    assert {path.name for path in (two_processes / "models").iterdir()} == {"teacher.pt", "model.pt"}
    for stage in ("teacher", "student"):
        assert [row["epoch"] for row in history(two_processes, stage)] == [1]
        assert len(list((two_processes / "eval" / "tensorboard" / stage).glob("events*"))) == 1
    assert (two_processes / "eval" / "training.html").is_file()
