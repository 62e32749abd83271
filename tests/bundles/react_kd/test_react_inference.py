"""inference.json on real files: what it writes, where the maps lie, what happens when a case is broken."""

from __future__ import annotations

import errno
import json
import math
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import Dataset
from react_case_files import AFFINE, BODY, LIVER, SHAPE, ct, ellipsoid, save, write_case, write_dicom
from react_inference_runs import (
    EXTREMES,
    extreme_seeking_weights,
    predict,
    predictions,
    random_weights,
    workflow,
)
from react_kd import phantom
from react_kd.data import cases

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> str:
    return random_weights(tmp_path_factory.mktemp("models"))


def _array(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def test_the_simulated_cohort_is_graded_and_explained(models, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    empty = dict.fromkeys(("training", "training_ungraded", "training_ungraded_ct", "validation"), 0)
    root = phantom.simulated_cohort(tmp_path / "cohort", sizes={**empty, "test": 3})
    run = workflow(models, root, tmp_path / "out", overlays=True)
    assert run.check_properties() == []
    run.run()
    rows = predictions(tmp_path / "out")
    assert len(rows) == 3
    for case in cases(Path(root) / "datalist.json", "test"):
        row, folder = rows[case["scan_id"]], tmp_path / "out" / case["scan_id"]
        chances = list(row["probabilities"].values())
        assert sum(chances) == pytest.approx(1)
        assert row["entropy"] == pytest.approx(-sum(p * math.log(p) for p in chances), abs=1e-5)
        assert row["grade"] == max(row["probabilities"], key=row["probabilities"].get)
        assert (row["streams"], row["missing"], row["notes"]) == (["ct", "pet"], [], [])
        assert row["label"] == ("well", "moderate", "poor")[case["label"]]
        image = nib.load(case["image"])
        inside = (_array(case["liver"]) + _array(case["mass"])) > 0
        for name in ("topo_gradcam", "topo_gradcam_std", "gradcam"):
            volume = nib.load(folder / f"{name}.nii.gz")
            assert volume.shape == image.shape
            np.testing.assert_allclose(volume.affine, image.affine, atol=1e-5)
            assert name == "gradcam" or not np.asarray(volume.dataobj)[~inside].any()
        assert _array(folder / "topo_gradcam.nii.gz").max() == pytest.approx(1)
        assert (folder / "overlay.png").read_bytes().startswith(b"\x89PNG")
        nodes = json.loads((folder / "regions.json").read_text())["nodes"]
        assert {"liver", "tumour"} == {node["type"] for node in nodes}
    assert not (tmp_path / "out" / "failed.json").exists()


def test_probabilities_are_those_of_the_network(models, tmp_path) -> None:
    write_case(tmp_path / "data", "a")
    run = workflow(models, tmp_path / "data", tmp_path / "out")
    run.run()
    sample = run.dataset[0]
    image = torch.cat([sample["image"], sample["pet"]]).as_tensor()[None]
    with torch.no_grad():
        wanted = run.network_def(image).softmax(dim=1)[0]
    found = predictions(tmp_path / "out")["a"]["probabilities"]
    assert list(found.values()) == pytest.approx(wanted.tolist(), abs=1e-6)


def test_ct_alone_gives_the_same_as_cases_that_have_nothing_else(models, tmp_path) -> None:
    write_case(tmp_path / "data", "a")
    write_case(tmp_path / "less", "a", pet_fdg=None, pet_act=None)
    told = predict(models, tmp_path / "data", tmp_path / "ct", streams="ct")["a"]
    lacking = predict(models, tmp_path / "less", tmp_path / "auto")["a"]
    both = predict(models, tmp_path / "data", tmp_path / "both")["a"]
    assert told["probabilities"] == pytest.approx(lacking["probabilities"])
    assert told["probabilities"] != pytest.approx(both["probabilities"])
    assert (told["streams"], told["missing"]) == (["ct"], [])
    assert (lacking["streams"], lacking["missing"]) == (["ct"], ["pet_fdg", "pet_act"])
    for out in ("ct", "auto"):
        assert (tmp_path / out / "a" / "topo_gradcam.nii.gz").is_file()
        assert not (tmp_path / out / "a" / "topo_gradcam_std.nii.gz").exists()
    with pytest.raises(RuntimeError, match=r"1 of 1 cases failed.*pet_fdg or pet_act"):
        predict(models, tmp_path / "less", tmp_path / "petct", streams="petct")


@pytest.mark.parametrize("dicom", [False, True])
def test_a_bare_image_gets_plain_grad_cam_in_its_own_space(models, tmp_path, dicom: bool) -> None:
    path = write_dicom(tmp_path / "scan", ct()) if dicom else save(tmp_path / "scan.nii.gz", ct())
    row = predict(models, path, tmp_path / "out", overlays=True)["scan"]
    assert [note.split(":")[0] for note in row["notes"]] == ["no liver mask", "no liver or mass mask"]
    assert row["missing"] == ["pet_fdg", "pet_act", "liver", "mass"]
    assert not (tmp_path / "out" / "scan" / "topo_gradcam.nii.gz").exists()
    assert (tmp_path / "out" / "scan" / "overlay.png").is_file()
    volume = nib.load(tmp_path / "out" / "scan" / "gradcam.nii.gz")
    assert volume.shape == SHAPE
    low, high = volume.affine @ [0, 0, 0, 1], volume.affine @ [*np.subtract(SHAPE, 1), 1]
    wanted = [AFFINE @ [0, 0, 0, 1], AFFINE @ [*np.subtract(SHAPE, 1), 1]]
    np.testing.assert_allclose(np.sort([low, high], axis=0), np.sort(wanted, axis=0), atol=1e-3)
    assert json.loads((tmp_path / "out" / "scan" / "regions.json").read_text())["nodes"] == []


@pytest.mark.parametrize(("grade", "contrast"), [("well", -120), ("poor", 120)])
@pytest.mark.parametrize("places", [((11, 12, 9), (19, 19, 11)), ((19, 13, 11), (11, 19, 9))])
def test_the_map_peaks_in_the_only_tumour_that_carries_a_signal(tmp_path, grade, contrast, places) -> None:
    signal, silent = (ellipsoid(place, (3, 3, 2)) for place in places)
    noise = np.random.default_rng(0).normal(0, 8, SHAPE)
    hu = (np.where(BODY, 40, -1000) + 60 * LIVER + contrast * signal + noise).astype(np.int16)
    mass = (signal | silent).astype(np.uint8)
    write_case(tmp_path / "data", "a", image=hu, mass=mass, pet_fdg=None, pet_act=None)
    network = {f"network_def#{key}": value for key, value in EXTREMES.items()}
    row = predict(extreme_seeking_weights(tmp_path), tmp_path / "data", tmp_path / "out", **network)["a"]
    assert row["grade"] == grade
    topo = _array(tmp_path / "out" / "a" / "topo_gradcam.nii.gz")
    peak = np.unravel_index(topo.argmax(), SHAPE)
    assert signal[peak]
    assert topo[signal].mean() > 3 * topo[silent].mean()
    nodes = json.loads((tmp_path / "out" / "a" / "regions.json").read_text())["nodes"]
    first = max(nodes, key=lambda node: node["relevance_smoothed"])
    centre = (AFFINE @ [*places[0], 1])[:3]
    np.testing.assert_allclose(first["centroid_mm"], centre, atol=3)


def test_broken_cases_are_listed_and_the_others_go_on(models, tmp_path) -> None:
    for name in ("a", "b", "c", "d"):
        write_case(tmp_path / "data", name)
    broken = tmp_path / "data" / "b" / "pet_fdg.nii.gz"
    broken.write_bytes(broken.read_bytes()[:-100])
    save(tmp_path / "data" / "c" / "image.nii.gz", np.where(LIVER, np.nan, ct()).astype(np.float32))
    with pytest.raises(RuntimeError, match=r"2 of 4 cases failed, see .*failed\.json; first case b"):
        predict(models, tmp_path / "data", tmp_path / "out")
    assert sorted(predictions(tmp_path / "out")) == ["a", "d"]
    failed = json.loads((tmp_path / "out" / "failed.json").read_text())
    assert [failure["scan_id"] for failure in failed] == ["b", "c"]
    for failure, key in zip(failed, ("pet_fdg", "image"), strict=True):
        assert f"key {key}, {failure['files'][key]}" in failure["error"]
    write_case(tmp_path / "data", "b")
    write_case(tmp_path / "data", "c")
    assert sorted(predict(models, tmp_path / "data", tmp_path / "out")) == ["a", "b", "c", "d"]
    assert not (tmp_path / "out" / "failed.json").exists()


def test_finished_cases_are_skipped_until_something_changes(models, tmp_path, monkeypatch) -> None:
    seen: list[int] = []
    original = Dataset.__getitem__
    monkeypatch.setattr(Dataset, "__getitem__", lambda self, i: (seen.append(i), original(self, i))[1])
    data, out = tmp_path / "data", tmp_path / "out"

    def predicted(weights: str = models, **overrides: object) -> list[int]:
        seen.clear()
        predict(weights, data, out, **overrides)
        return list(seen)

    write_case(data, "a")
    assert predicted() == [0]
    write_case(data, "b")
    assert predicted() == [1]
    assert predicted() == []
    assert predicted(overwrite=True) == [0, 1]
    assert predicted(random_weights(tmp_path / "other", seed=1)) == [0, 1]
    save(data / "a" / "image.nii.gz", ct(seed=1))
    assert predicted(str(tmp_path / "other")) == [0]
    (out / "b" / "prediction.json").write_text('{"scan_id"')
    assert predicted(str(tmp_path / "other")) == [1]
    (data / "a" / "pet_fdg.nii.gz").unlink()
    (data / "a" / "pet_act.nii.gz").unlink()
    assert predicted(str(tmp_path / "other")) == [0]
    assert not (out / "a" / "topo_gradcam_std.nii.gz").exists()


def test_a_full_disk_stops_the_run_and_keeps_what_is_written(models, tmp_path, monkeypatch) -> None:
    for name in ("a", "b"):
        write_case(tmp_path / "data", name)
    original = nib.save

    def full(image: nib.Nifti1Image, path: Path) -> None:
        if path.parent.name == "b":
            raise OSError(errno.ENOSPC, "No space left on device")
        original(image, path)

    monkeypatch.setattr(nib, "save", full)
    with pytest.raises(OSError, match=r"cannot write .*/b/topo_gradcam\.nii\.gz: No space left on device"):
        predict(models, tmp_path / "data", tmp_path / "out")
    assert list(predictions(tmp_path / "out")) == ["a"]
    monkeypatch.setattr(nib, "save", original)
    assert list(predict(models, tmp_path / "data", tmp_path / "out")) == ["a", "b"]
