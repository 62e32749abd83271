"""Training as a user types it, in a real process: killed without warning, typed again, finished."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from kif_training_runs import BUNDLE, TINY, equal, history, weights

ROOT = BUNDLE.parents[1]
COMMAND = ["-m", "monai.bundle", "run", "training", "--config_file", "bundles/kif_mrg/configs/train.json"]


def start(cohort: Path, out: Path, log: Path) -> subprocess.Popen[bytes]:
    """Type the command of the README at the root of the repository, with the numbers of the tests."""
    folders = {"dataset_dir": cohort, "ckpt_dir": out / "models", "output_dir": out / "eval"}
    # A third round, so that there is time left to be killed in.
    settings = {**TINY, "rounds": 3, **folders}
    options = [text for key, value in settings.items() for text in (f"--{key}", str(value))]
    environment = os.environ | {
        "MEDBUNDLES_CACHE": str(out / "cache"),  # its own: the first run finds nothing done
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    with log.open("wb") as file:
        return subprocess.Popen(
            [sys.executable, *COMMAND, *options], cwd=ROOT, env=environment, stdout=file, stderr=file
        )


def kill_when_there(process: subprocess.Popen[bytes], file: Path) -> None:
    """kill -9 as soon as the process has written `file`."""
    while not file.exists() and process.poll() is None:
        time.sleep(0.005)
    process.kill()
    process.wait()


def untouched() -> dict[str, int]:
    """Time of change of every file of the repository's bundle that a run could write."""
    files = [path for part in ("models", "eval") for path in (BUNDLE / part).rglob("*")]
    return {str(path): path.stat().st_mtime_ns for path in files}


@pytest.fixture(scope="module")
def logs(tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """Folder of the run, and what was on the screen before and after it was killed in round 1."""
    out = tmp_path_factory.mktemp("typed")
    before = untouched()
    first, second = out / "first.log", out / "second.log"
    process = start(tiny_cohort, out, first)
    kill_when_there(process, out / "models" / "round1_resume.pt")
    assert process.returncode == -signal.SIGKILL, first.read_text()[-4000:]
    assert not (out / "models" / "reporter.pt").exists()
    assert start(tiny_cohort, out, second).wait(timeout=300) == 0, second.read_text()[-4000:]
    assert untouched() == before
    return out, first.read_text(), second.read_text()


def test_the_second_run_goes_on_where_the_first_was_killed(logs: tuple[Path, str, str]) -> None:
    _, first, second = logs
    assert "round0 epoch 2/2" in first
    assert "1 finished rounds found" in second
    assert "resuming after epoch" in second
    assert "round0 epoch" not in second
    assert "round1 epoch 1/2" not in second
    assert "round2 epoch 2/2" in second


def test_the_outcome_is_that_of_an_undisturbed_run(logs: tuple[Path, str, str], trained: Path) -> None:
    out = logs[0]
    for index in range(2):
        name = f"round{index}.pt"
        assert equal(weights(out / "models" / name), weights(trained / "models" / name))
        assert history(out, index) == history(trained, index)
    left = {path.name for path in (out / "models").iterdir()}
    assert left == {path.name for path in (trained / "models").iterdir()} | {"round2.pt"}
    assert [row["epoch"] for row in history(out, 2)] == [1, 2]


def test_progress_and_results_are_on_the_screen(logs: tuple[Path, str, str]) -> None:
    out, first, second = logs
    for bar in ("checking images", "report memory", "images"):  # the second run finds all of it done
        assert f"{bar}: 100%" in first
    for line in ("<- taken", str(out / "models" / "reporter.pt"), str(out / "eval" / "training.html")):
        assert line in second
    assert f"tensorboard --logdir {out / 'eval' / 'tensorboard'}" in second
