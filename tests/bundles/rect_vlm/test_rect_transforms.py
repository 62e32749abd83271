"""From any orientation to one tensor and back to the file's voxels; no side is ever exchanged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Invertd
from rect_tiny_ctrate import AFFINE, GEOMETRY, LESION, SPACING, chest, save
from rect_vlm.findings import LESIONS
from rect_vlm.geometry import Geometry
from rect_vlm.regions import REGIONS
from rect_vlm.transforms import eval_transform, invert, train_transform

NODULE = LESIONS.index("lung_nodule")
HU, MASK, LOBES = chest()


def record(folder: Path, axes: str = "LPS", **more: Any) -> dict[str, Any]:
    files = {"image": HU, "nodule": MASK, "lobes": LOBES}
    paths = {key: str(save(folder / f"{key}_{axes}.nii.gz", array, axes)) for key, array in files.items()}
    return {
        "image": paths["image"],
        "regions": paths["lobes"],
        "lesion_masks": {"lung_nodule": paths["nodule"]},
        **more,
    }


def test_axes_are_superior_posterior_left(tmp_path: Path) -> None:
    sample = eval_transform(GEOMETRY)(record(tmp_path))
    assert sample["image"].shape == sample["regions"].shape == (1, *GEOMETRY.img_size)
    assert sample["masks"].shape == (5, *GEOMETRY.img_size)
    body = (sample["image"][0] > -0.5).nonzero().float()
    lesion = sample["masks"][NODULE].nonzero().float().mean(0)
    middle = (body.amin(0) + body.amax(0)) / 2
    assert lesion[0] > middle[0]  # apex: high D
    assert lesion[1] > middle[1]  # behind: high H
    assert lesion[2] < middle[2]  # the patient's right: low W
    lobe = sample["regions"][0].bool() & sample["masks"][NODULE].bool()
    found = sample["regions"][0][lobe].unique().tolist()
    assert {REGIONS[i - 1] for i in found} <= {"lung_upper_lobe_right"}
    inside = sample["regions"][0] == REGIONS.index("lung_upper_lobe_right") + 1
    assert inside.nonzero().float().mean(0)[2] < middle[2]


@pytest.mark.parametrize("axes", ["RAS", "PSR", "IRA"])
def test_files_in_other_orientations_give_the_same_tensors(tmp_path: Path, axes: str) -> None:
    wanted, other = (eval_transform(GEOMETRY, keep_meta=False)(record(tmp_path, a)) for a in ("LPS", axes))
    for key in ("image", "regions", "masks", "affine"):
        torch.testing.assert_close(other[key], wanted[key])
    assert wanted["masks"][NODULE].sum() == MASK.sum()


def test_mask_and_region_files_may_have_another_orientation_than_their_ct(tmp_path: Path) -> None:
    one, two = record(tmp_path, "LPS"), record(tmp_path, "PSR")
    mixed = {**one, "regions": two["regions"], "lesion_masks": two["lesion_masks"]}
    wanted, found = (eval_transform(GEOMETRY)(case) for case in (one, mixed))
    for key in ("regions", "masks"):
        torch.testing.assert_close(found[key], wanted[key])


def test_values_are_clipped_hu_over_1000_and_air_around(tmp_path: Path) -> None:
    array = HU.copy()
    array[LESION] = 2500
    save(tmp_path / "ct.nii.gz", array)
    image = eval_transform(GEOMETRY)({"image": tmp_path / "ct.nii.gz"})["image"]
    assert image.dtype == torch.float32
    assert (image.min(), image.max()) == (-1, 1)
    wide = eval_transform(Geometry((32, 56, 56), (SPACING,) * 3, (4, 8, 8)))(
        {"image": tmp_path / "ct.nii.gz"}
    )["image"]
    assert (wide[:, :, :8] == -1).all()
    torch.testing.assert_close(wide[:, :, 8:48, 8:48].as_tensor(), image.as_tensor())


def test_a_record_without_masks(tmp_path: Path) -> None:
    sample = eval_transform(GEOMETRY)({"image": MetaTensor(torch.from_numpy(HU), affine=AFFINE)})
    assert not sample["regions_known"]
    assert not sample["mask_known"].any()
    assert not sample["regions"].any()
    assert sample["masks"].shape == (5, *GEOMETRY.img_size)
    known = eval_transform(GEOMETRY)(record(tmp_path))
    assert known["regions_known"]
    assert known["mask_known"].tolist() == [lesion == "lung_nodule" for lesion in LESIONS]


@pytest.mark.parametrize("axes", ["LPS", "RAS", "PSR"])
@pytest.mark.parametrize(
    "geometry",
    [GEOMETRY, Geometry((32, 64, 64), (5.0, 6.0, 6.0), (4, 8, 8)), Geometry((32, 72, 80), None, (4, 8, 8))],
)
def test_a_mask_comes_back_onto_the_voxels_of_the_file(tmp_path: Path, axes: str, geometry: Geometry) -> None:
    case = record(tmp_path, axes)
    sample = eval_transform(geometry)(case)
    back = invert(sample["masks"].float(), sample["affine"], sample["source_affine"], sample["source_shape"])
    stored = nib.load(case["lesion_masks"]["lung_nodule"])
    np.testing.assert_allclose(back.affine, stored.affine, atol=1e-6)
    truth, found = stored.get_fdata() > 0, back[NODULE].numpy() > 0.5
    dice = 2 * (truth & found).sum() / (truth.sum() + found.sum())
    assert dice > (0.99 if geometry is GEOMETRY else 0.9 if geometry.spacing is None else 0.75)
    assert back.shape == (5, *stored.shape)


def test_monai_inverts_by_the_history_of_the_image(tmp_path: Path) -> None:
    case, transform = record(tmp_path, "PSR"), eval_transform(GEOMETRY)
    sample = transform(case)
    sample["pred"] = MetaTensor(sample["masks"][NODULE : NODULE + 1].float())
    undo = Invertd("pred", transform, orig_keys="image", nearest_interp=True)
    found = undo(sample)["pred"]
    np.testing.assert_array_equal(
        found[0].numpy() > 0.5, nib.load(case["lesion_masks"]["lung_nodule"]).get_fdata() > 0
    )


def test_augmentation_keeps_sides_and_moves_masks_with_the_image(tmp_path: Path) -> None:
    array = HU.copy()
    array[LESION] = 900
    case = {**record(tmp_path), "image": str(save(tmp_path / "bright.nii.gz", array))}
    transform = train_transform(GEOMETRY)
    plain = eval_transform(GEOMETRY, keep_meta=False)(case)
    moved = 0
    for seed in range(4):
        sample = transform.set_random_state(seed)(case)
        assert type(sample["image"]) is torch.Tensor
        assert -1 <= sample["image"].min() <= sample["image"].max() <= 1
        lesion, bright = sample["masks"][NODULE].bool(), sample["image"][0] > 0.45
        overlap = 2 * (lesion & bright).sum() / (lesion.sum() + bright.sum())
        assert overlap > 0.6
        left, right = (sample["regions"][0] == i for i in (4, 1))
        assert right.nonzero().float().mean(0)[2] + 5 < left.nonzero().float().mean(0)[2]
        assert set(sample["regions"].unique().tolist()) <= {0, 1, 4}
        moved += not torch.equal(sample["masks"], plain["masks"])
    assert moved >= 2
    assert torch.equal(train_transform(GEOMETRY, augment=False)(case)["image"], plain["image"])


def test_fine_slices_are_averaged_not_picked(tmp_path: Path) -> None:
    """Bright and dark slices in turn: a coarse grid must see their mean, not one kind."""
    array = np.repeat(np.repeat(np.repeat(HU, 2, 0), 2, 1), 2, 2)
    array[..., ::2] += 300
    affine = nib.affines.from_matvec(np.diag([4.0, 4, 2]), [-160, -144, 0])
    save(tmp_path / "ct.nii.gz", array, affine=affine)
    coarse = Geometry((16, 40, 40), (8.0, 8.0, 8.0), (4, 8, 8))
    image = eval_transform(coarse)({"image": tmp_path / "ct.nii.gz"})["image"][0]
    tissue = image[4:12, 12:16, 19:21]
    assert tissue.mean() == pytest.approx(0.19, abs=0.03)
    assert tissue.std() < 0.03


def test_masks_on_another_grid_are_told_with_record_and_key(tmp_path: Path) -> None:
    case = record(tmp_path, id="train_1_a_1")
    shifted = AFFINE.copy()
    shifted[0, 3] += 4
    case["regions"] = str(save(tmp_path / "shifted.nii.gz", LOBES, affine=shifted))
    with pytest.raises(
        ValueError, match=r"train_1_a_1 \(.*key regions: .*shifted\.nii\.gz.* 0\.5 voxels away"
    ):
        eval_transform(GEOMETRY)(case)
    case = record(tmp_path, id="train_1_a_1")
    case["lesion_masks"] = {"consolidation": str(save(tmp_path / "small.nii.gz", MASK[:-1]))}
    with pytest.raises(ValueError, match=r"key lesion_masks: .*got shape \(39, 36, 30\)"):
        eval_transform(GEOMETRY)(case)
