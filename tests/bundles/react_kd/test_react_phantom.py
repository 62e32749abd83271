"""The simulated cohort: the same to the voxel for one seed, plausible, in real files, resumable."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from react_kd.data import read_datalist
from react_kd.phantom import AnatomyParams, CohortSizes, ensure, simulate_case, simulated_cohort
from react_training_runs import COHORT
from scipy import ndimage

GRADES = (0, 1, 2)
SMALL = {**dict.fromkeys(CohortSizes.__annotations__, 0), "training": 2, "training_ungraded_ct": 1}


@pytest.fixture(scope="module")
def patients() -> list[tuple[int, dict]]:
    """Twelve patients of each grade: (grade, volumes)."""
    return [(grade, simulate_case([3, grade, k], grade)) for grade in GRADES for k in range(12)]


def test_seed_decides_every_voxel() -> None:
    first, again, other = (simulate_case([5, 0, seed], 1) for seed in (1, 1, 2))
    for name, (array, affine) in first.items():
        assert np.array_equal(array, again[name][0])
        assert np.array_equal(affine, again[name][1])
        assert array.shape != other[name][0].shape or not np.array_equal(array, other[name][0])


def test_anatomy_is_plausible(patients: list[tuple[int, dict]]) -> None:
    voxel_ml = np.prod(AnatomyParams().spacing_mm) / 1000
    for _, volumes in patients:
        ct, liver, mass = (volumes[name][0] for name in ("ct", "liver", "mass"))
        assert 700 < liver.sum() * voxel_ml < 2600  # mL; an adult liver has about 1500
        assert 0 < mass.sum() < 0.5 * liver.sum()
        assert not np.any(mass & ~liver)
        healthy = ct[(liver > 0) & (mass == 0)]
        assert 70 < healthy.mean() < 140  # HU, portal-venous phase
        assert 8 < healthy.std() < 30
        assert ct[0, 0].max() < -900  # air outside the body
        assert set(np.unique(liver)) == set(np.unique(mass)) == {0, 1}


def test_liver_lies_on_the_right_of_the_patient(patients: list[tuple[int, dict]]) -> None:
    for _, volumes in patients:
        liver, affine = volumes["liver"]
        center = affine[:3, :3] @ np.argwhere(liver).mean(axis=0) + affine[:3, 3]
        assert center[0] > 20


def test_pet_has_a_grid_of_its_own_over_the_same_space(patients: list[tuple[int, dict]]) -> None:
    def corners(name: str) -> tuple[np.ndarray, np.ndarray]:
        array, affine = patients[0][1][name]
        ends = np.array([[-0.5] * 3, np.array(array.shape) - 0.5]) @ affine[:3, :3].T + affine[:3, 3]
        return ends[0], ends[1]

    ct, ct_affine = patients[0][1]["ct"]
    for name in ("pet_fdg", "pet_act"):
        pet, affine = patients[0][1][name]
        assert pet.shape != ct.shape
        assert not np.allclose(affine, ct_affine)
        for ours, theirs in zip(corners(name), corners("ct"), strict=True):
            assert np.abs(ours - theirs).max() <= np.abs(np.diag(affine)[:3]).max() / 2


def test_signal_follows_the_grade_in_the_mean(patients: list[tuple[int, dict]]) -> None:
    """Well-differentiated disease takes up acetate, poor FDG; CT contrast falls; grades overlap."""
    found: dict[tuple[str, int], list[float]] = defaultdict(list)
    for grade, volumes in patients:
        for name in ("pet_fdg", "pet_act", "ct"):
            image, affine = volumes[name]
            liver, mass = (on_grid(*volumes[key], image.shape, affine) for key in ("liver", "mass"))
            lesion, organ = float(image[mass].mean()), float(image[liver & ~mass].mean())
            found[name, grade].append(lesion - organ if name == "ct" else lesion / organ)
    means = {key: np.mean(values) for key, values in found.items()}
    assert means["pet_fdg", 0] < means["pet_fdg", 1] < means["pet_fdg", 2]
    for name in ("pet_act", "ct"):
        assert means[name, 0] > means[name, 1] > means[name, 2]
        assert min(found[name, 0]) < max(found[name, 1])
    assert max(found["pet_fdg", 0]) > min(found["pet_fdg", 1])


def on_grid(mask: np.ndarray, own: np.ndarray, shape: tuple[int, ...], affine: np.ndarray) -> np.ndarray:
    """A mask (X, Y, Z) of affine `own` at the voxel centres of another grid, as bool."""
    to_own = np.linalg.inv(own) @ affine
    return ndimage.affine_transform(mask, to_own[:3, :3], to_own[:3, 3], shape, order=0) > 0


def test_files_hold_units_and_spacing(tiny_cohort: Path) -> None:
    for case in read_datalist(tiny_cohort / "datalist.json").splits["training"][:2]:
        ct = nib.load(case["image"])
        assert ct.header.get_zooms() == AnatomyParams().spacing_mm
        assert ct.header.get_xyzt_units()[0] == "mm"
        assert nib.aff2axcodes(ct.affine) == ("R", "A", "S")
        assert ct.get_data_dtype() == np.int16
        for key in ("liver", "mass"):
            assert np.array_equal(nib.load(case[key]).affine, ct.affine)
        pet = nib.load(case["pet_fdg"])
        assert pet.header.get_zooms()[:2] == (5.0, 5.0)
        assert 1 < pet.get_fdata().max() < 30  # SUV


def test_sizes_and_streams_of_the_splits(tiny_cohort: Path) -> None:
    splits = read_datalist(tiny_cohort / "datalist.json").splits
    assert {name: len(rows) for name, rows in splits.items()} == {"training": 8, "validation": 3}
    graded = [case for case in splits["training"] if "label" in case]
    assert len(graded) == COHORT["training"]
    assert sum("label" not in case and "pet_fdg" in case for case in splits["training"]) == 1
    assert sum("label" not in case and "pet_fdg" not in case for case in splits["training"]) == 1
    assert sorted(case["label"] for case in splits["validation"]) == [0, 1, 2]


def test_patients_stay_in_one_split_and_keep_their_grade(tmp_path: Path) -> None:
    folder = simulated_cohort(tmp_path, sizes={"training": 60, "second_scan": 0.3, "external_ct": 9})
    splits, grades = defaultdict(set), defaultdict(set)
    scans: list[str] = []
    for split, rows in read_datalist(Path(folder) / "datalist.json").splits.items():
        for case in rows:
            splits[case["patient_id"]].add(split)
            grades[case["patient_id"]].add(case.get("label"))
            scans.append(case["scan_id"])
    assert all(len(found) == 1 for found in (*splits.values(), *grades.values()))
    assert len(set(scans)) == len(scans)
    assert len(splits) < len(scans)  # some patients have two scans


def test_removed_case_is_made_again_to_the_voxel(tmp_path: Path) -> None:
    folder = Path(simulated_cohort(tmp_path / "a", sizes=SMALL, generate=True))
    names = sorted(path.relative_to(folder) for path in folder.rglob("*.nii.gz"))
    assert len(names) == 2 * 5 + 3
    before = {name: nib.load(folder / name).get_fdata() for name in names}
    kept = folder / "t0001" / "ct.nii.gz"
    written = kept.stat().st_mtime_ns
    shutil.rmtree(folder / "t0000")
    ensure(folder, workers=1, progress=False)
    assert sorted(path.relative_to(folder) for path in folder.rglob("*.nii.gz")) == names
    assert all(np.array_equal(nib.load(folder / name).get_fdata(), before[name]) for name in names)
    assert kept.stat().st_mtime_ns == written


def test_cohort_in_the_cache_is_named_by_what_it_depends_on(cache: Path) -> None:
    folders = {simulated_cohort(seed=seed, sizes=sizes) for seed in (0, 1) for sizes in (None, SMALL)}
    assert len(folders) == 4
    assert simulated_cohort() in folders
    assert all(Path(folder).is_relative_to(cache) for folder in folders)


def test_other_folders_are_left_alone(tmp_path: Path) -> None:
    ensure(tmp_path)
    (tmp_path / "datalist.json").write_text(json.dumps({"training": [{"scan_id": "a", "image": "a.nii.gz"}]}))
    ensure(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["datalist.json"]
