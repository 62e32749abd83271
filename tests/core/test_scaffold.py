"""A new bundle verifies, trains with MONAI alone, and is evaluated and used with `medbundles run`."""

import csv
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
from medbundles.cli import main
from medbundles.scaffold import scaffold


@pytest.fixture(autouse=True)
def separate(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("MEDBUNDLES_CACHE", str(tmp_path / "cache"))


def test_a_new_bundle_verifies_trains_evaluates_and_predicts(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main(["new", "fresh_bundle"])
    main(["verify", "fresh_bundle", "--trust"])
    assert "fresh_bundle: everything holds" in capsys.readouterr().out

    command = ["-m", "monai.bundle", "run", "training", "--config_file", "fresh_bundle/configs/train.json"]
    subprocess.run([sys.executable, *command], cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "fresh_bundle" / "models" / "model.pt").is_file()
    assert not (tmp_path / "models").exists()

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    monkeypatch.setenv("MEDBUNDLES_PATH", str(tmp_path))
    main(["run", "fresh_bundle", "evaluate"])
    results = tmp_path / "fresh_bundle" / "eval"
    with (results / "metrics.csv").open() as file:
        dice = float(dict(csv.reader(file))["val_dice"])
    assert dice > 0.6

    main(["run", "fresh_bundle", "inference", "--output_dir", str(tmp_path / "out")])
    predictions = sorted((tmp_path / "out").glob("*.nii.gz"))
    cohort = next((tmp_path / "cache" / "fresh_bundle").iterdir())
    labels = sorted((cohort / "labels").glob("*.nii.gz"))
    assert len(predictions) == len(labels) == 12
    pairs = [(nib.load(p), nib.load(t)) for p, t in zip(predictions, labels, strict=True)]
    assert all(np.allclose(p.affine, t.affine) for p, t in pairs)
    agreement = [(np.asarray(p.dataobj).squeeze() == np.asarray(t.dataobj)).mean() for p, t in pairs]
    assert min(agreement) > 0.85
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize("name", ["Demo", "1st", "with-dash", "scripts", "class", "json", ""])
def test_names_that_cannot_be_packages_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match="a bundle name must"):
        scaffold(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_left_alone(tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(FileExistsError, match="already there"):
        scaffold("mine", tmp_path)
    assert list((tmp_path / "mine").iterdir()) == []


def test_no_placeholder_is_left(tmp_path):
    root = scaffold("renamed", tmp_path)
    files = [file for file in root.rglob("*") if file.is_file()]
    assert not [
        file
        for file in files
        if "bundle_name" in str(file.relative_to(root)) or "bundle_name" in file.read_text()
    ]
    assert (root / "renamed" / "networks.py") in files
