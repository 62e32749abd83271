"""MedSAM2 files: spacing in either order, geometry, windowed values that never pass for HU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from rect_tiny_ctrate import AFFINE, GEOMETRY, chest, tiny_ctrate
from rect_vlm.findings import LESIONS
from rect_vlm.grids import VolumeGrid
from rect_vlm.medsam2_conversion import prepare_ctrate_for_medsam2
from rect_vlm.npz import read_npz, read_npz_folder, write_npz
from rect_vlm.transforms import eval_transform
from rect_vlm.volume_input import read_volume

HU, MASK, _ = chest()
NODULE = LESIONS.index("lung_nodule")


def store(path: Path, **content: Any) -> Path:
    volume = np.zeros((9, 10, 11), np.uint8)
    np.savez(path, **{"imgs": volume, "gts": volume, "spacing": [0.3, 0.3, 5.0], **content})
    return path


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        ({}, [0.3, 0.3, 5]),
        ({"spacing": [5.0, 0.3, 0.3]}, [0.3, 0.3, 5]),
        ({"spacing": [1.0, 1.0, 1.0]}, [1, 1, 1]),
        # As the authors' files: x, y, z beside direction and origin, whatever the numbers suggest.
        ({"spacing": [5.0, 0.3, 0.3], "direction": np.eye(3).ravel(), "origin": [1.0, 2, 3]}, [5, 0.3, 0.3]),
    ],
)
def test_spacing_in_either_order(tmp_path: Path, content: dict[str, Any], wanted: list[float]) -> None:
    volume = read_npz(store(tmp_path / "a.npz", **content))
    assert volume.grid.shape == (11, 10, 9)
    assert volume.grid.spacing == pytest.approx(wanted)


def test_spacing_that_tells_no_order(tmp_path: Path) -> None:
    path = store(tmp_path / "a.npz", spacing=[1.0, 2.0, 3.0])
    with pytest.raises(
        ValueError, match=r"a\.npz, key spacing: its order cannot be told from \[1\.0, 2\.0, 3\.0\]"
    ):
        read_npz(path)
    assert read_npz(path, "zyx").grid.spacing == (3, 2, 1)


@pytest.mark.parametrize("axes", ["LPS", "PSR", "RAS"])
def test_writing_and_reading_keeps_voxels_and_place(tmp_path: Path, axes: str) -> None:
    turn = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(axes)
    )
    image = nib.Nifti1Image(HU, AFFINE).as_reoriented(turn)
    hu = image.get_fdata()
    volume = read_npz(write_npz(tmp_path / "a.npz", hu, VolumeGrid(hu.shape, image.affine), hu > 0))
    np.testing.assert_allclose(volume.grid.affine, image.affine, atol=1e-6)
    np.testing.assert_array_equal(volume.ids, hu > 0)
    np.testing.assert_allclose(volume.image / 255 * 2000 - 1000, hu.clip(-1000, 1000), atol=4)
    raw = np.load(tmp_path / "a.npz")
    assert raw["imgs"].shape == hu.shape[::-1]
    assert raw["imgs"].dtype == raw["gts"].dtype == np.uint8


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"imgs": np.zeros((9, 10, 11), np.float32)}, r"key imgs: must be uint8 \(D, H, W\), got float32"),
        ({"imgs": np.zeros((9, 10), np.uint8)}, r"key imgs: must be uint8 \(D, H, W\), got uint8 \(9, 10\)"),
        ({"gts": np.zeros((9, 10, 12), np.uint8)}, "key gts: must have the shape of imgs"),
        ({"spacing": [1.0, 0.0, 1.0]}, "key spacing: must be three positive mm"),
    ],
)
def test_damaged_content(tmp_path: Path, content: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_npz(store(tmp_path / "a.npz", **content))


def test_other_files_and_the_second_name_of_the_image(tmp_path: Path) -> None:
    np.savez(tmp_path / "b.npz", volume=np.zeros((9, 10, 11), np.uint8), spacing=[1.0, 1, 1])
    assert read_npz(tmp_path / "b.npz").ids is None
    np.savez(tmp_path / "c.npz", picture=np.zeros(3))
    with pytest.raises(ValueError, match=r"c\.npz, key imgs: required, the file has picture"):
        read_npz(tmp_path / "c.npz")
    (tmp_path / "d.npz").write_text("text")
    with pytest.raises(ValueError, match=r"d\.npz: must be an npz file of arrays"):
        read_npz(tmp_path / "d.npz")
    with pytest.raises(ValueError, match=r"lesion_ids must name .*, got tumour"):
        read_npz_folder(tmp_path, {"tumour": 1})


def test_a_cohort_goes_to_medsam2_and_back(tmp_path: Path) -> None:
    root = tiny_ctrate(tmp_path / "ctrate")
    folder = prepare_ctrate_for_medsam2(root, tmp_path / "npz", split="valid")
    (record,) = read_npz_folder(folder)
    assert (record["id"], record["intensity"]) == ("valid_1_a_1", "uint8_window")
    found = eval_transform(GEOMETRY, keep_meta=False)(record)
    name = root / "valid_fixed/valid_1/valid_1_a/valid_1_a_1.nii.gz"
    mask = str(root / "lesion_masks/lung_nodule/valid_1_a_1.nii.gz")
    wanted = eval_transform(GEOMETRY, keep_meta=False)({"image": name, "lesion_masks": {"lung_nodule": mask}})
    torch.testing.assert_close(found["image"], wanted["image"], atol=0.0045, rtol=0)
    assert torch.equal(found["masks"], wanted["masks"])
    assert found["masks"][NODULE].sum() == MASK.sum()
    with pytest.raises(ValueError, match='look windowed: use intensity="uint8_window"'):
        read_volume(record["image"])
    with pytest.raises(ValueError, match="no volume of train has a mask"):
        prepare_ctrate_for_medsam2(root, tmp_path / "npz", mask_dir=tmp_path / "none", split="train")
    assert record["lesion_masks"].keys() == set(LESIONS)
