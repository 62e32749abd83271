"""A training that the system kills and that is started again ends as one that was left alone, bit by bit."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from rect_llm import tiny_folder
from rect_training_runs import BUNDLE, CONFIG, checkpoint, history, make_cohort, numbers

pytestmark = pytest.mark.slow  # five processes, each of which imports everything
PATIENCE = 900  # s


def overlay(folder: Path) -> Path:
    """A config over train.json: a tiny model on a few scans, four epochs or steps of the later phases."""
    table = json.loads(CONFIG.read_text())["phase_table"]
    for name, phase in table.items():
        phase |= {"epochs": 4 if name == "2" else 1, "batch_size": 3}
    table["3"]["options"] = {"steps": 4, "validate_every": 1, "studies": 3, "group": 2, "max_tokens": 4}
    settings = {
        "dataset_dir": str(make_cohort(folder)), "device": "$torch.device('cpu')", "amp": "off",
        "val_reports": 3, "max_new_tokens": 4, "model_config": numbers(tiny_folder(folder / "llm")),
        "phases": list(table), "phase_table": table,
    }  # fmt: skip
    path = folder / "tiny.json"
    path.write_text(json.dumps(settings))
    return path


class Training:
    """The command of a training, as it is typed, in a process of its own."""

    def __init__(self, config: Path, out: Path) -> None:
        self.config, self.out, self.log = config, out, out / "log.txt"

    def run(self, kill_at: str | None = None) -> str:
        """Run to the end, or until a file of ckpt_dir appears and the process is killed; returns its log."""
        self.out.mkdir(exist_ok=True)
        places = {"bundle_root": BUNDLE, "ckpt_dir": self.out / "models", "output_dir": self.out / "eval"}
        command = [sys.executable, "-m", "monai.bundle", "run", "training"]
        command += ["--config_file", f"['{CONFIG}','{self.config}']"]
        command += [word for name, place in places.items() for word in (f"--{name}", str(place))]
        quiet = {"MEDBUNDLES_CACHE": str(self.config.parent / "cache"), "CUDA_VISIBLE_DEVICES": ""}
        with self.log.open("w") as log:
            process = subprocess.Popen(
                command, cwd=self.out, env=os.environ | quiet, stdout=log, stderr=subprocess.STDOUT
            )
        try:
            code = process.wait(PATIENCE) if kill_at is None else self._kill(process, kill_at)
        finally:
            process.kill()
        told = self.log.read_text()
        assert code == (0 if kill_at is None else -signal.SIGKILL), told[-3000:]
        return told

    def _kill(self, process: subprocess.Popen[bytes], name: str) -> int:
        end = time.monotonic() + PATIENCE
        while process.poll() is None and time.monotonic() < end:
            if (self.out / "models" / name).is_file():
                process.send_signal(signal.SIGKILL)
                return process.wait()
            time.sleep(0.005)
        return process.poll() or 0


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return overlay(tmp_path_factory.mktemp("config"))


@pytest.fixture(scope="module")
def whole(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a training that nobody interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    Training(config, folder).run()
    return folder


def test_a_training_killed_twice_ends_like_one_left_alone(config: Path, whole: Path, tmp_path: Path) -> None:
    models, training = tmp_path / "models", Training(config, tmp_path)
    models.mkdir()
    for file in (whole / "models").glob("phase_1_*"):  # the first phases are those of the other training
        shutil.copy(file, models)
    training.run(kill_at="phase_2_resume.pt")
    assert not (models / "phase_2.json").exists()
    assert "phase 1.3 is finished" in training.log.read_text()
    told = training.run(kill_at="phase_3_resume.pt")
    assert "resuming after epoch" in told
    assert (models / "phase_2.json").exists()
    assert not (models / "phase_3.json").exists()
    told = training.run()
    assert "phase 2 is finished" in told
    assert "resuming after step" in told
    for phase in ("2", "3"):
        found, wanted = checkpoint(tmp_path, phase), checkpoint(whole, phase)
        assert found.keys() == wanted.keys()
        assert all(torch.equal(tensor, wanted[key]) for key, tensor in found.items())
        assert history(tmp_path, phase) == history(whole, phase)
    assert not list(models.glob("*_resume.pt"))
    saved = [folder / "models" / "rect_vlm" / "model.safetensors" for folder in (tmp_path, whole)]
    assert saved[0].read_bytes() == saved[1].read_bytes()
