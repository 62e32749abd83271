"""Lesion masks: which file wins, which value is the lesion, five masks in one volume, ReXGroundingCT."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from rect_tiny_ctrate import AFFINE, SHAPE, chest, save, tiny_ctrate
from rect_vlm.ctrate import read_ctrate
from rect_vlm.findings import LESIONS
from rect_vlm.grids import VolumeGrid
from rect_vlm.lesion_masks import lesion_bits, read_label_map, unpack_lesions
from rect_vlm.rexgrounding import convert_rexgrounding, lesion_channels, lesion_of

GRID = VolumeGrid(SHAPE, AFFINE)
PLACE = "train_fixed/train_1/train_1_a/train_1_a_1.nii.gz"


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_ctrate(tmp_path_factory.mktemp("ctrate"))


@pytest.fixture
def root(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "ctrate"))


def test_own_masks_win_over_segmentations_whose_values_are_told_apart(root: Path) -> None:
    fluids = np.zeros(SHAPE, np.uint8)
    fluids[2:5, 3:6, 4:7], fluids[8:10, 3:6, 4:7] = 2, 3  # pleural, pericardial
    save(root / "ts_seg/ts_pleural_pericard_effusion" / PLACE, fluids)
    save(root / "ts_seg/ts_lung_nodules" / PLACE, np.full(SHAPE, 2, np.uint8))
    record = read_ctrate(root)[0]
    assert set(record["lesion_masks"]) == {"pericardial_effusion", "pleural_effusion", "lung_nodule"}
    assert "lesion_masks" in record["lesion_masks"]["lung_nodule"]
    image = nib.load(record["image"])
    bits = lesion_bits(record, VolumeGrid(image.shape, image.affine))
    masks = unpack_lesions(torch.from_numpy(bits)[None])
    assert masks.shape == (5, *image.shape)
    sums = dict(zip(LESIONS, masks.sum((1, 2, 3)).tolist(), strict=True))
    assert sums == {
        "pericardial_effusion": 2 * 9, "pleural_effusion": 3 * 9, "consolidation": 0,
        "ground_glass_opacity": 0, "lung_nodule": int(chest()[1].sum()),
    }  # fmt: skip


def test_overlapping_lesions_stay_apart_in_one_volume(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    truth = {lesion: rng.integers(0, 2, SHAPE, dtype=np.uint8) for lesion in LESIONS}
    paths = {lesion: str(save(tmp_path / f"{lesion}.nii.gz", mask, "RAS")) for lesion, mask in truth.items()}
    bits = lesion_bits({"lesion_masks": paths, "mask_values": {}}, GRID)
    masks = unpack_lesions(torch.from_numpy(bits)[None]).numpy()
    for channel, lesion in enumerate(LESIONS):
        np.testing.assert_array_equal(masks[channel], truth[lesion])


def test_a_folder_of_an_unknown_lesion_is_told(root: Path) -> None:
    (root / "lesion_masks/lung_nodules").mkdir()
    with pytest.raises(
        ValueError, match=r"lung_nodules: must be named like a lesion .*nearest is lung_nodule"
    ):
        read_ctrate(root)


def test_a_label_map_must_hold_whole_numbers_on_the_grid_of_its_ct(tmp_path: Path) -> None:
    halves = save(tmp_path / "half.nii.gz", np.full(SHAPE, 0.5, np.float32))
    with pytest.raises(ValueError, match=r"half\.nii\.gz: must hold whole numbers, got values such as 0\.5"):
        read_label_map(halves, GRID)
    wide = AFFINE.copy()
    wide[:3, :3] *= 1.02
    with pytest.raises(
        ValueError, match=r"wide\.nii\.gz: must lie on the grid of its CT, got one .* voxels away"
    ):
        read_label_map(save(tmp_path / "wide.nii.gz", chest()[1], affine=wide), GRID)
    np.testing.assert_array_equal(read_label_map(chest()[1], GRID), chest()[1])


@pytest.mark.parametrize(
    ("category", "text", "lesion"),
    [
        ("2b", "Consolidation in the left lower lobe", "consolidation"),
        ("2b", "Linear atelectasis", None),
        ("2c", "Patchy opacity", "ground_glass_opacity"),
        ("2d", "Subpleural nodule", "lung_nodule"),
        ("2d", "Mass in the hilum", None),
        ("2e", "Pleural thickening", None),
        ("2e", "Bilateral pleural effusion", "pleural_effusion"),
        ("1a", "Nodule", None),
    ],
)
def test_categories_of_rexgrounding(category: str, text: str, lesion: str | None) -> None:
    assert lesion_of(category, text) == lesion


def test_rexgrounding_becomes_masks_on_the_grid_of_the_volume(root: Path, tmp_path: Path) -> None:
    findings = {"0": "Nodule in the right lobe", "1": "Consolidation", "2": "Second nodule"}
    entry = {
        "name": "train_2_a_1.nii.gz",
        "findings": findings,
        "categories": {"0": "2d", "1": "2b", "2": "2d"},
    }
    assert lesion_channels(entry)["lung_nodule"] == [0, 2]
    (tmp_path / "dataset.json").write_text(
        json.dumps({"train": [entry, {**entry, "name": "train_9_a_1.nii.gz"}]})
    )
    volume = nib.load(root / "train_fixed/train_2/train_2_a/train_2_a_1.nii.gz")
    channels = np.zeros((3, *volume.shape), np.uint8)
    channels[0, 1:3, 2, 2], channels[1, 5, 5, 5:9], channels[2, 20, 20:23, 4] = 1, 2, 7
    (tmp_path / "masks").mkdir()
    nib.save(nib.Nifti1Image(channels, np.eye(4)), tmp_path / "masks/train_2_a_1.nii.gz")
    target = tmp_path / "out"
    with pytest.raises(
        ValueError, match=r"1 problem in .*dataset\.json:\s+train_9_a_1\.nii\.gz: .*no such file"
    ):
        convert_rexgrounding(tmp_path / "dataset.json", tmp_path / "masks", root, target, progress=False)
    written = {path.parent.name: nib.load(path) for path in (target / "lesion_masks").rglob("*.nii.gz")}
    sums = {lesion: int(mask.get_fdata().sum()) for lesion, mask in written.items()}
    assert sums == {
        "lung_nodule": 2 + 3,
        "consolidation": 4,
        "ground_glass_opacity": 0,
        "pleural_effusion": 0,
    }
    np.testing.assert_allclose(written["lung_nodule"].affine, volume.affine)
