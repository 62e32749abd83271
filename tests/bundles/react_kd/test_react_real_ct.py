"""The walk-through of the real chest CT on a coarse crop of it, with random weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from react_inference_runs import predictions, random_weights
from react_kd.convert.common import load_nifti
from react_kd.real_cohort import Anatomy, load_anatomy
from react_kd.real_ct_case import CT_ALONE, CT_PET, NO_MASKS, make_case
from react_kd.real_ct_steps import low_dose
from react_kd.real_ct_walkthrough import walk_through

STRIDE = (4, 4, 2)


@pytest.fixture
def anatomy(sample: Callable[[str], Path]) -> Anatomy:
    """The liver of the real CT and 10 mm about it, at every fourth pixel of every second slice."""
    fine = load_anatomy(sample("chest_ct"), margin_mm=10.0)
    every = tuple(slice(None, None, step) for step in STRIDE)
    organs = {name: mask[every] for name, mask in fine.organs.items()}
    return Anatomy(fine.ct_hu[every], fine.affine @ np.diag([*STRIDE, 1.0]), organs)


def _array(path: Path) -> np.ndarray:
    return np.asarray(load_nifti(path).dataobj)


def test_every_step_runs_and_the_maps_lie_on_the_ct(anatomy: Anatomy, tmp_path: Path) -> None:
    weights = Path(random_weights(tmp_path / "models")) / "model.pt"
    out = tmp_path / "out"
    page = walk_through(anatomy, out, weights, photons=[5e4, 1e3])

    ct = load_nifti(out / "case" / "ct.nii.gz")
    assert ct.shape == anatomy.ct_hu.shape
    np.testing.assert_allclose(ct.affine, anatomy.affine, atol=1e-4)
    rows = predictions(out / "inference")
    assert {scan: row["streams"] for scan, row in rows.items()} == {
        CT_PET: ["ct", "pet"], CT_ALONE: ["ct"], NO_MASKS: ["ct"],
    }  # fmt: skip
    inside = (_array(out / "case" / "liver.nii.gz") + _array(out / "case" / "mass.nii.gz")) > 0
    for scan in rows:
        for name in ("gradcam",) if scan == NO_MASKS else ("gradcam", "topo_gradcam"):
            path = out / "inference" / scan / f"{name}.nii.gz"
            assert load_nifti(path).shape == ct.shape
            np.testing.assert_allclose(load_nifti(path).affine, ct.affine, atol=1e-4)
            assert name == "gradcam" or not _array(path)[~inside].any()
    assert any(_array(path).any() for path in out.glob("inference/*/gradcam.nii.gz"))

    numbers = json.loads((out / "real_ct.json").read_text())
    shapes = numbers["preprocessing"]["shapes"]
    grid = shapes["image"][1:]
    assert {key: shape[1:] for key, shape in shapes.items()} == dict.fromkeys(shapes, grid)
    assert (shapes["image"][0], shapes["pet"][0]) == (1, 2)
    assert [row["scan_id"] for row in numbers["inference"]] == [CT_PET, CT_ALONE, NO_MASKS]
    graph = numbers["region_graph"]
    assert graph["liver_nodes"] == 4
    assert graph["tumour_nodes"] >= 1
    assert np.shape(graph["edges"]) == (len(graph["names"]),) * 2
    pictures = [out / f"{name}.png" for name in ("low_dose", "preprocessing", "region_graph")]
    for picture in [*pictures, *(out / f"overlay_{scan}.png" for scan in rows)]:
        assert picture.read_bytes().startswith(b"\x89PNG")
        assert picture.stat().st_size < 300_000
    assert "simulated lesions in a real CT" in page.read_text()
    assert "origin of the CT is not stated" in page.read_text()


def test_noise_in_the_real_liver_grows_as_photons_fall(anatomy: Anatomy, tmp_path: Path) -> None:
    case = make_case(anatomy, tmp_path, 0, "test")
    rows, _ = low_dose(case, [1e6, 5e4, 1e4, 1e3], seed=0)
    noise = [row["noise_hu"] for row in rows[1:]]
    assert noise == sorted(noise)
    # Poisson statistics: the noise goes with 1 / sqrt(photons) where rays do not run out of them.
    assert noise[2] / noise[1] == pytest.approx(5**0.5, rel=0.15)
    spread = [row["sd_hu"] for row in rows[1:]]
    assert spread == sorted(spread)
    assert low_dose(case, [5e4], seed=0)[0][1] == rows[2]


def test_a_missing_checkpoint_stops_before_anything_is_written(anatomy: Anatomy, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.pt"):
        walk_through(anatomy, tmp_path / "out", tmp_path / "nothing.pt", [1e4])
    assert not (tmp_path / "out").exists()


def test_without_a_student_inference_is_left_out_and_said_so(
    anatomy: Anatomy, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    page = walk_through(anatomy, tmp_path / "out", "", [1e4])
    assert "no trained student given" in caplog.text
    assert "inference was left out" in page.read_text()
    assert "inference" not in json.loads((tmp_path / "out" / "real_ct.json").read_text())
    assert (tmp_path / "out" / "region_graph.png").is_file()
