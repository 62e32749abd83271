"""Preprocessing: values, grids, missing inputs, the way back to the CT, and augmentation."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.transforms import RandomizableTrait
from react_case_files import (
    AFFINE,
    BODY,
    LIVER,
    MASS,
    PET_AFFINE,
    SHAPE,
    ct,
    pet,
    save,
    write_case,
    write_dicom,
)
from react_kd.data import eval_loader, make_dataset
from react_kd.transforms import augmentation, preprocessing

SIZE = (24, 20, 12)


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def test_keys_shapes_and_types(tmp_path: Path) -> None:
    case = {**write_case(tmp_path), "clinical": {"age": 60}}
    sample = preprocessing(size=SIZE, dose_levels=[None, 5e4])(case)
    expected = {"image": 1, "pet": 2, "dose": 2, "liver": 1, "mass": 1, "regions": 1}
    assert {key: tuple(sample[key].shape) for key in expected} == {k: (c, *SIZE) for k, c in expected.items()}
    assert all(sample[key].dtype == torch.float32 for key in ("image", "pet", "dose"))
    assert sample["label"].dtype == torch.int64
    assert sample["label"] == 1
    assert sample["pet_available"].tolist() == [True, True]
    assert (sample["patient_id"], sample["scan_id"]) == ("p_s0", "s0")
    assert set(sample) == {*expected, "label", "pet_available", "patient_id", "scan_id"}
    assert set(sample["regions"].unique().tolist()) >= {0, 1, 5}
    assert not any(hasattr(sample[key], "affine") for key in expected)


def test_z_score_in_the_liver(tmp_path: Path) -> None:
    """Mean 0 and deviation 1 but for the few voxels beyond 4 deviations, which are clipped."""
    sample = preprocessing(size=SIZE, roi="liver_crop", dose_levels=[1e4])(write_case(tmp_path))
    for key in ("image", "dose"):
        inside = sample[key][0][sample["liver"][0] > 0]
        assert abs(inside.mean()) < 0.02
        assert abs(inside.std(correction=0) - 1) < 0.05
        assert sample[key].abs().max() <= 4.0


def test_full_dose_is_the_ct_itself(tmp_path: Path) -> None:
    sample = preprocessing(size=SIZE, dose_levels=[None, 5e2])(write_case(tmp_path))
    torch.testing.assert_close(sample["dose"][:1], sample["image"], atol=1e-4, rtol=1e-4)
    assert (sample["dose"][1] - sample["image"][0]).std() > 0.1


def test_more_air_around_the_patient_changes_nothing(tmp_path: Path) -> None:
    pre = preprocessing(size=SIZE, roi="liver_crop")
    plain = pre(write_case(tmp_path, pet_fdg=None, pet_act=None))
    pad = ((6, 3), (2, 9), (0, 0))
    moved = AFFINE.copy()
    moved[:3, 3] = (AFFINE @ [-6, -2, 0, 1])[:3]
    files = {"image": np.pad(ct(), pad, constant_values=-1000), "liver": np.pad(LIVER, pad).astype(np.uint8)}
    files["mass"] = np.pad(MASS, pad).astype(np.uint8)
    wide = pre({key: save(tmp_path / "wide" / f"{key}.nii.gz", a, moved) for key, a in files.items()})
    torch.testing.assert_close(wide["image"], plain["image"], atol=1e-5, rtol=0)
    torch.testing.assert_close(wide["regions"], plain["regions"])


def test_liver_mask_is_zero_outside_the_liver(tmp_path: Path) -> None:
    sample = preprocessing(size=SIZE, roi="liver_mask", dose_levels=[5e4])(write_case(tmp_path))
    inside = sample["liver"][0] > 0
    for key in ("image", "pet", "dose"):
        assert sample[key][:, ~inside].abs().max() == 0
        assert sample[key][:, inside].abs().max() > 0


def test_liver_ratio_is_zero_in_healthy_liver_whatever_the_units(tmp_path: Path) -> None:
    """The median of healthy liver becomes 0, and a PET in other units gives the same sample."""
    plain = preprocessing(size=SIZE)(write_case(tmp_path / "suv", pet_fdg=pet()))
    scaled = preprocessing(size=SIZE)(write_case(tmp_path / "bq", pet_fdg=1000 * pet()))
    healthy = (plain["liver"][0] > 0) & (plain["mass"][0] == 0)
    assert plain["pet"][0][healthy].median() == pytest.approx(0.0, abs=1e-6)
    torch.testing.assert_close(plain["pet"], scaled["pet"], atol=1e-4, rtol=1e-4)


def test_pet_meets_the_ct_in_physical_space(tmp_path: Path) -> None:
    """Uptake is linear in the world's x, so after all grids it must still be: same flip, same offset."""
    case = write_case(tmp_path)
    sample = preprocessing(size=SIZE, roi="liver_crop", pet_scale="suv", keep_meta=True)(case)
    index = np.indices(SIZE).reshape(3, -1)
    affine = sample["image"].affine.numpy()
    expected = 0.005 * ((affine[:3, :3] @ index + affine[:3, 3:])[0] + 60)
    inside = (slice(1, -1), slice(None), slice(None))  # smoothing bends the line at the ends of x
    found = sample["pet"][0].numpy()[inside]
    np.testing.assert_allclose(found, expected.reshape(SIZE)[inside], atol=1e-3)


def test_pet_percentiles_are_those_of_the_body(tmp_path: Path) -> None:
    values = pet()
    values[:, :, 0] = 500.0  # a slice below the CT: outside the body as far as is known
    sample = preprocessing(size=SIZE, roi="full", pet_scale="percentiles")(
        write_case(tmp_path, pet_fdg=values)
    )
    world = (AFFINE[0, 0] * np.arange(SHAPE[0]) + AFFINE[0, 3])[np.nonzero(BODY)[0]]
    low, high = 0.05 * (np.percentile(world, [1, 99]) + 60)
    middle = sample["pet"][0, 12, 10, 6]
    expected = (0.05 * (50 - 2 * (39 - 12.5 / 24 * 40 + 0.5) + 60) - low) / (high - low)
    assert abs(middle - expected) < 0.03
    assert sample["pet"].min() >= 0
    assert sample["pet"].max() <= 1 + 1e-6


def test_missing_tracers_are_zero_and_flagged(tmp_path: Path) -> None:
    sample = preprocessing(size=SIZE)(write_case(tmp_path, label=None, pet_fdg=None))
    assert sample["pet_available"].tolist() == [False, True]
    assert sample["pet"][0].abs().max() == 0
    assert sample["pet"][1].abs().max() > 0
    assert sample["label"] == -1


def test_ct_alone_falls_back_to_the_body(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = save(tmp_path / "new.nii.gz", ct())
    with caplog.at_level(logging.WARNING):
        sample = preprocessing(size=SIZE)({"image": path, "pet_fdg": None})
    assert "new" in caplog.text
    assert "no liver mask" in caplog.text
    assert sample["scan_id"] == sample["patient_id"] == "new"
    assert sample["image"].isfinite().all()
    assert sample["image"].std() > 0
    assert not any(sample[key].any() for key in ("liver", "mass", "regions", "pet", "pet_available"))


def test_ct_alone_batches_with_complete_cases(tmp_path: Path) -> None:
    alone = {"image": save(tmp_path / "new.nii.gz", ct())}
    dataset = make_dataset([write_case(tmp_path), alone], preprocessing(size=SIZE), cache="none")
    batch = next(iter(eval_loader(dataset, batch_size=2)))
    assert batch["image"].shape == (2, 1, *SIZE)
    assert batch["label"].tolist() == [1, -1]
    assert batch["pet_available"].tolist() == [[True, True], [False, False]]


@pytest.mark.parametrize("reader", ["NibabelReader", "ITKReader"])
def test_dicom_series_equals_its_nifti(tmp_path: Path, reader: str) -> None:
    case = write_case(tmp_path)
    series = write_dicom(tmp_path / "series", ct())
    pre = preprocessing(size=SIZE, reader=reader, keep_meta=True)
    nifti, dicom = pre(case), pre({**case, "image": series})
    torch.testing.assert_close(dicom["image"].as_tensor(), nifti["image"].as_tensor(), atol=1e-3, rtol=1e-3)
    np.testing.assert_allclose(dicom["image"].affine, nifti["image"].affine, atol=1e-3)


def test_mask_on_another_grid_is_resampled(tmp_path: Path) -> None:
    case = write_case(tmp_path)
    coarse = AFFINE @ np.diag([2.0, 2.0, 1.0, 1.0])
    other = {**case, "liver": save(tmp_path / "c.nii.gz", LIVER[::2, ::2].astype(np.uint8), coarse)}
    pre = preprocessing(size=SHAPE, roi="full")
    assert dice(pre(case)["liver"].numpy() > 0, pre(other)["liver"].numpy() > 0) > 0.85


def test_preprocessing_is_deterministic_and_cacheable(tmp_path: Path) -> None:
    pre = preprocessing(size=SIZE, dose_levels=[1e4])
    assert not any(isinstance(step, RandomizableTrait) for step in pre.transforms)
    case = write_case(tmp_path)
    torch.testing.assert_close(pre(case)["dose"], pre(case)["dose"], atol=0, rtol=0)


def test_augmentation_moves_all_keys_together(tmp_path: Path) -> None:
    sample = preprocessing(size=SIZE, roi="liver_crop", dose_levels=[None, 1e4, 1e3])(write_case(tmp_path))
    augment = augmentation(affine_probability=1.0)
    augment.set_random_state(seed=3)
    moved = augment(dict(sample))
    assert moved["dose"].shape == (1, *SIZE)
    assert not torch.equal(moved["image"], sample["image"])
    assert {type(moved[key]) for key in ("image", "pet", "dose", "liver", "regions")} == {torch.Tensor}
    for key in ("liver", "mass", "regions"):
        assert moved[key].dtype == torch.uint8
        assert set(moved[key].unique().tolist()) <= set(sample[key].unique().tolist())
    torch.testing.assert_close((moved["regions"] >= 5), moved["mass"] > 0)
    # The lesion stays where it is in the CT: darker than the rest of the liver.
    lesion, liver = moved["mass"] > 0, (moved["liver"] > 0) & (moved["mass"] == 0)
    assert moved["image"][lesion].mean() < moved["image"][liver].mean() - 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"roi": "lung"}, "roi must be one of full, liver_crop, liver_mask"),
        ({"size": (8, 8)}, "three positive"),
    ],
)
def test_wrong_settings(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        preprocessing(**arguments)


def test_pet_elsewhere_in_the_patient(tmp_path: Path) -> None:
    case = write_case(tmp_path)
    far = PET_AFFINE.copy()
    far[2, 3] += 1000
    case["pet_fdg"] = save(tmp_path / "far.nii.gz", pet(), far)
    for scale, reason in (
        ("percentiles", "no PET voxel lies in the body"),
        ("liver_ratio", "no uptake in the liver"),
    ):
        with pytest.raises(RuntimeError) as caught:
            preprocessing(size=SIZE, pet_scale=scale)(case)
        assert f"s0, key pet_fdg: {reason}" in str(caught.value.__cause__)
