"""Training in two processes: torchrun, gloo, multi_gpu_train.json, the language model in shares."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from rect_llm import tiny_folder
from rect_training_runs import BUNDLE, TRAINED, checkpoint, history, make_cohort, numbers

CONFIGS = BUNDLE / "configs"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run of all phases in two processes, each of which leaves the weights it ends with."""
    out = tmp_path_factory.mktemp("two")
    items = json.loads((CONFIGS / "multi_gpu_train.json").read_text())["training"]
    probe = "$torch.save(@model.weights_state(), @output_dir + '/rank' + os.environ['RANK'] + '.pt')"
    items.insert(items.index("$@stages.run()") + 1, probe)
    (out / "probe.json").write_text(json.dumps({"training": items}))
    grpo = {"steps": 2, "validate_every": 1, "studies": 3, "group": 2, "max_tokens": 4}
    settings = {
        "bundle_root": str(BUNDLE), "dataset_dir": str(make_cohort(out)), "ckpt_dir": str(out / "models"),
        "output_dir": str(out / "eval"), "amp": "off", "val_reports": 3, "max_new_tokens": 4,
        "model_config": numbers(tiny_folder(out / "llm")), "shard_llm": True,
        "phases": list(TRAINED), "phase_table#3#options": grpo,
    }  # fmt: skip
    for phase in TRAINED:
        settings |= {f"phase_table#{phase}#epochs": 1, f"phase_table#{phase}#batch_size": 1}
    (out / "settings.json").write_text(json.dumps(settings))
    configs = [
        str(file) for file in (CONFIGS / "train.json", CONFIGS / "multi_gpu_train.json", out / "probe.json")
    ]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command += ["-m", "monai.bundle", "run", "training", "--config_file", str(configs)]
    command += ["--args_file", str(out / "settings.json")]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "MEDBUNDLES_CACHE": str(out / "cache"),
    }
    run = subprocess.run(command, env=environment, cwd=out, capture_output=True, text=True, timeout=600)
    (out / "stderr.txt").write_text(run.stderr)
    assert run.returncode == 0, run.stderr[-6000:]
    return out


def test_both_processes_end_with_the_weights_on_disk(out: Path) -> None:
    first, second = (torch.load(out / "eval" / f"rank{rank}.pt", weights_only=True) for rank in range(2))
    assert set(first) == set(second)
    joint = checkpoint(out, "2")
    for key, value in joint.items():
        if not key.startswith("lora."):  # the best of phase 3 on disk need not be its last
            assert torch.equal(first[key], value)
            assert torch.equal(second[key], value)
    reinforced = checkpoint(out, "3")
    assert all(torch.equal(first[key], value) for key, value in reinforced.items())
    assert any(not torch.equal(second[key], joint[key]) for key in reinforced)


def test_one_process_writes(out: Path) -> None:
    stems = [f"phase_{phase.replace('.', '_')}" for phase in TRAINED]
    assert {file.name for file in (out / "models").glob("*.pt")} == {"model.pt", *(f"{s}.pt" for s in stems)}
    assert (out / "models" / "rect_vlm" / "adapter" / "adapter_model.safetensors").is_file()
    for phase, stem in zip(TRAINED, stems, strict=True):
        assert [row["epoch"] for row in history(out, phase)] == ([0, 1, 2] if phase == "3" else [1])
        assert len(list((out / "eval" / "tensorboard" / stem).glob("events*"))) == 1
    assert {file.suffix for file in (out / "cache" / "rect_vlm" / "volumes").iterdir()} == {".pt"}
    assert len(list((out / "cache" / "rect_vlm" / "volumes").iterdir())) == 9
