"""The commands as a user types them, in real processes: train, evaluate and use the student, on tiny data."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from nibabel.nifti1 import Nifti1Image
from react_kd.phantom import simulated_cohort

ROOT = Path(__file__).resolve().parents[1]
BUNDLE = ROOT / "bundles" / "react_kd"
TRAIN = ["-m", "monai.bundle", "run", "training", "--config_file", "bundles/react_kd/configs/train.json"]
CASES = {"training": 6, "training_ungraded": 1, "training_ungraded_ct": 1, "validation": 3, "test": 3}
SIZE = ["--size", "[16,16,8]"]


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file in the bundle's folders of results."""
    files = [path for part in ("models", "eval") for path in (folder / part).rglob("*") if path.is_file()]
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in files}


def run(command: Sequence[str | Path], cwd: Path, cache: Path) -> str:
    environment = os.environ | {
        "MEDBUNDLES_CACHE": str(cache),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, check=False, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny cohort, an empty folder to work in, and what the command of the README trained."""
    folder = tmp_path_factory.mktemp("commands")
    (folder / "elsewhere").mkdir()
    simulated_cohort(folder / "cohort", sizes=CASES, generate=True)
    before = contents(BUNDLE)
    options = ["--epochs", "1", "--teacher_epochs", "1", "--batch_size", "4", *SIZE, *folders(folder)]
    (folder / "log.txt").write_text(run([sys.executable, *TRAIN, *options], ROOT, folder / "cache"))
    assert contents(BUNDLE) == before
    return folder


def folders(work: Path, output: str = "eval") -> list[str | Path]:
    return [
        "--dataset_dir", work / "cohort", "--ckpt_dir", work / "models", "--output_dir", work / output,
    ]  # fmt: skip


def medbundles(work: Path, *arguments: str | Path) -> str:
    """The console script, run in a folder that knows nothing of the repository."""
    script = shutil.which("medbundles", path=sysconfig.get_path("scripts"))
    assert script, "the console script medbundles is not installed"
    output = run([script, *arguments], work / "elsewhere", work / "cache")
    assert list((work / "elsewhere").iterdir()) == []
    return output


def test_training_from_the_repository_root(work: Path) -> None:
    log = (work / "log.txt").read_text()
    for network in ("teacher", "student"):
        assert re.search(rf"{network} validation .*\bval_auc [01]\.\d+", log), log[-2000:]
    assert str(work / "models" / "model.pt") in log
    assert str(work / "eval" / "tensorboard") in log
    for name in ("model.pt", "teacher.pt"):
        state = torch.load(work / "models" / name, weights_only=True)
        assert all(bool(value.isfinite().all()) for value in state.values())
    for name in ("student", "teacher"):
        (row,) = (work / "eval" / f"{name}_history.jsonl").read_text().splitlines()
        assert 0 <= json.loads(row)["val_auc"] <= 1
    assert list((work / "eval" / "tensorboard").rglob("events.out.tfevents*"))
    assert "<img" in (work / "eval" / "training.html").read_text()


def test_evaluate_from_another_folder(work: Path) -> None:
    options = ["--n_bootstrap", "20", "--dose_levels", "[None,1e4]", *SIZE]
    medbundles(work, "run", "react_kd", "evaluate", *folders(work), *options)
    results = work / "eval" / "evaluation"
    figures = {
        "roc", "confusion", "reliability", "decision_curve", "modalities", "decision_curve_modalities",
        "dose_beer_lambert",
    }  # fmt: skip
    assert {path.stem for path in results.glob("*.png")} == figures
    page = (results / "evaluation.html").read_text()
    assert page.count("data:image/png;base64,") == len(figures)
    assert "simulated liver cohort" in page
    rows = json.loads((results / "metrics.json").read_text())["results"]
    conditions = {(row["network"], row["condition"]) for row in rows}
    assert {("student", name) for name in ("ct", "petct", "pet", "ct_10000_beer_lambert")} <= conditions
    assert ("teacher", "petct") in conditions
    with (results / "predictions.csv").open() as file:
        scans = {row["scan_id"] for row in csv.DictReader(file)}
    assert len(scans) == CASES["test"]


def test_inference_from_another_folder(work: Path) -> None:
    medbundles(work, "run", "react_kd", "inference", *folders(work, "inference"), *SIZE)
    out = work / "inference"
    assert not (out / "failed.json").exists()
    with (out / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    datalist = json.loads((work / "cohort" / "datalist.json").read_text())
    assert [row["scan_id"] for row in rows] == [case["scan_id"] for case in datalist["test"]]
    assert len((out / "predictions.jsonl").read_text().splitlines()) == len(rows)
    promised = ["prediction.json", "topo_gradcam.nii.gz", "topo_gradcam_std.nii.gz", "gradcam.nii.gz"]
    for case in datalist["test"]:
        folder = out / case["scan_id"]
        written = {path.name for path in folder.iterdir()}
        assert {*promised, "regions.json", "overlay.png"} <= written
        ct = Nifti1Image.from_filename(work / "cohort" / case["image"])
        heat = Nifti1Image.from_filename(folder / "topo_gradcam.nii.gz")
        assert heat.shape == ct.shape
        assert abs(heat.affine - ct.affine).max() < 1e-4
