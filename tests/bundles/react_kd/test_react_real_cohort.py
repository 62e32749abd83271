"""Simulated lesions in the real CT: files, geometry, determinism, resume."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from react_kd import real_cohort
from react_kd.real_cohort import body_mask, insert_case, load_anatomy

AFFINE = np.array([[-3.0, 0, 0, 90], [0, 3.0, 0, -80], [0, 0, 4, -100], [0, 0, 0, 1]])
SHAPE = (64, 56, 40)


@pytest.fixture
def labelled_ct(tmp_path: Path) -> Path:
    """A folder like the fetched sample: CT, label map and structures.csv, with a ball for a liver."""
    grid = np.indices(SHAPE)
    ball = sum(((g - c) * s) ** 2 for g, c, s in zip(grid, (26, 28, 18), (3, 3, 4), strict=True)) < 48**2
    body = ((grid[0] - 32) / 30) ** 2 + ((grid[1] - 28) / 25) ** 2 < 1
    ct = np.where(body, 40, -1000) + 60 * ball
    ct[30:34, 53:56, :] = 200  # a table beside the patient
    labels = np.where(ball, 7, 0)
    labels[50:56, 20:26, 10:20] = 3
    folder = tmp_path / "sample"
    folder.mkdir()
    nib.save(nib.Nifti1Image(ct.astype(np.int16), AFFINE), folder / "cxr.nii.gz")
    nib.save(nib.Nifti1Image(labels.astype(np.uint8), AFFINE), folder / "mask.nii.gz")
    (folder / "structures.csv").write_text("structure,id\nspleen,3\nliver,7\nlung_upper_lobe_left,9\n")
    return folder


@pytest.fixture
def table(tmp_path: Path) -> Path:
    folder = tmp_path / "table"
    folder.mkdir()
    rows = "".join(f"{1 + k % 2},{k % 2},{40 + k},1,0\n" for k in range(8))
    (folder / "hepatoCellular.csv").write_text(
        "fac_Tumordifferentiation,fac_AFP,num_Age,fac_Gender,fac_HBsAg\n" + rows
    )
    return folder


@pytest.fixture
def sources(labelled_ct: Path, table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = {"chest_ct": labelled_ct, "hepatocellular_table": table}
    monkeypatch.setattr(real_cohort, "fetch", folders.__getitem__)


def test_the_crop_keeps_world_coordinates_and_reads_ids_by_name(labelled_ct: Path) -> None:
    anatomy = load_anatomy(labelled_ct, margin_mm=6.0)
    labels = nib.load(labelled_ct / "mask.nii.gz")
    world = nib.affines.apply_affine(labels.affine, np.argwhere(labels.get_fdata() == 7))
    cropped = nib.affines.apply_affine(anatomy.affine, np.argwhere(anatomy.organs["liver"]))
    np.testing.assert_allclose(cropped, world)
    margins = [(m.min(), m.max()) for m in np.where(anatomy.organs["liver"])]
    assert all(low == 2 for low, _ in margins)
    assert anatomy.spacing_mm == pytest.approx((3, 3, 4))


def test_a_missing_structure_is_named(labelled_ct: Path) -> None:
    (labelled_ct / "structures.csv").write_text("structure,id\nliver,7\n")
    with pytest.raises(ValueError, match="spleen"):
        load_anatomy(labelled_ct)


def test_the_body_has_no_table_and_no_holes(labelled_ct: Path) -> None:
    hu = nib.load(labelled_ct / "cxr.nii.gz").get_fdata()
    hu[20:24, 20:24, :] = -900
    body = body_mask(hu)
    assert body[21, 21].all()
    assert not body[32, 55].any()
    with pytest.raises(ValueError, match="tissue"):
        body_mask(np.full(SHAPE, -1000.0))


def test_the_cohort_is_complete_and_resumes(sources: None, tmp_path: Path) -> None:
    def make() -> Path:
        sizes = {"training": 3, "test": 1}
        return Path(real_cohort.real_cohort(tmp_path / "out", 5, sizes, workers=1, progress=False))

    folder = make()
    datalist = json.loads((folder / "datalist.json").read_text())
    assert "simulated lesions in a real CT" in datalist["name"]
    assert sorted(case["label"] for case in datalist["training"]) == [0, 1, 2]
    first = datalist["training"][0]
    images = {key: nib.load(folder / first[key]) for key in ("image", "liver", "mass", "pet_fdg", "pet_act")}
    assert images["mass"].shape == images["image"].shape
    np.testing.assert_allclose(images["image"].affine[:3, :3], AFFINE[:3, :3], atol=1e-4)
    assert np.linalg.norm(images["pet_fdg"].affine[:3, :3], axis=0) == pytest.approx([5, 5, 4], abs=1e-3)
    mass, liver = (np.asarray(images[key].dataobj) for key in ("mass", "liver"))
    assert mass.any()
    assert not (mass & ~liver.astype(bool)).any()
    wanted = folder / datalist["training"][1]["image"]
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.nii.gz")}
    content = nib.load(wanted).get_fdata()
    wanted.unlink()
    make()
    np.testing.assert_array_equal(nib.load(wanted).get_fdata(), content)
    assert all(
        path.stat().st_mtime_ns == time for path, time in before.items() if path.parent != wanted.parent
    )


def test_grade_two_gets_rows_of_the_less_differentiated(sources: None, tmp_path: Path) -> None:
    folder = Path(real_cohort.real_cohort(tmp_path / "out", 0, {"training": 3}, workers=1, progress=False))
    for case in json.loads((folder / "datalist.json").read_text())["training"]:
        assert case["clinical"]["afp"] == (1 if case["label"] == 2 else 0)


def test_other_settings_in_the_same_folder_are_refused(sources: None, tmp_path: Path) -> None:
    real_cohort.real_cohort(tmp_path / "out", 0, {"test": 1}, workers=1, progress=False)
    with pytest.raises(ValueError, match="other settings"):
        real_cohort.real_cohort(tmp_path / "out", 1, {"test": 1}, workers=1, progress=False)


def test_the_real_ct_takes_a_lesion(sample) -> None:
    anatomy = load_anatomy(sample("chest_ct"))
    volume_ml = anatomy.organs["liver"].sum() * np.prod(anatomy.spacing_mm) / 1000
    assert volume_ml == pytest.approx(1023, abs=1)
    volumes = insert_case(anatomy, 2, [0, 0, 0])
    mass, liver = volumes["mass"][0] > 0, anatomy.organs["liver"]
    assert mass.any()
    assert not (mass & ~liver).any()
    changed = volumes["ct"][0] != anatomy.ct_hu
    assert changed[mass].mean() > 0.9
    assert not changed[~liver].any()
