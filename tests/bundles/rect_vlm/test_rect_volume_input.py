"""One volume from a file, an image, an array: the same HU and affine, and every unusable one is told."""

from __future__ import annotations

import gzip
import logging
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from rect_tiny_ctrate import AFFINE, SHAPE, chest, save
from rect_vlm.volume_input import DEFAULT_AFFINE, read_volume

HU = chest()[0]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("ct") / "ct.nii.gz", HU, "RAS")


def test_every_source_gives_the_same_volume(path: Path) -> None:
    image = nib.load(path)
    array = image.get_fdata()
    sources = [
        read_volume(path),
        read_volume(str(path)),
        read_volume(image),
        read_volume(array, affine=image.affine),
        read_volume(torch.from_numpy(array), affine=image.affine),
        read_volume(MetaTensor(torch.from_numpy(array)[None], affine=torch.from_numpy(image.affine))),
        read_volume(array[..., None], affine=image.affine),
    ]
    for volume in sources:
        assert volume.shape == (1, *SHAPE)
        assert volume.dtype == torch.float32
        np.testing.assert_array_equal(volume[0].numpy(), HU)
        np.testing.assert_allclose(volume.affine, AFFINE)


def test_an_array_without_affine_is_taken_as_lps_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        volume = read_volume(HU)
    assert "no affine" in caplog.text
    np.testing.assert_array_equal(volume.affine, DEFAULT_AFFINE)
    assert nib.aff2axcodes(volume.affine.numpy()) == ("L", "P", "S")


def test_the_array_that_came_is_not_changed() -> None:
    array = HU.astype(np.float32)
    read_volume(array, affine=AFFINE).add_(1)
    np.testing.assert_array_equal(array, HU)


def test_metadata_gives_hu_and_voxel_size(tmp_path: Path) -> None:
    raw = save(tmp_path / "raw.nii.gz", HU + 1024, affine=np.eye(4))
    volume = read_volume(raw, hu_source="metadata", slope=1, intercept=-1024, spacing=(8, 8, 7))
    assert volume.pixdim.tolist() == [8, 8, 7]
    assert nib.aff2axcodes(volume.affine.numpy()) == ("L", "P", "S")
    fixed = read_volume(save(tmp_path / "fixed.nii.gz", HU))
    torch.testing.assert_close(volume.as_tensor(), fixed.as_tensor())
    with pytest.raises(ValueError, match=r"raw\.nii\.gz: .*need RescaleSlope of the metadata"):
        read_volume(raw, hu_source="metadata", intercept=-1024)
    with pytest.raises(ValueError, match=r"fixed\.nii\.gz: holds no HU .*would be plausible"):
        read_volume(tmp_path / "fixed.nii.gz", hu_source="metadata", slope=1, intercept=-1024)


def test_windowed_values_need_the_option() -> None:
    window = np.clip((HU + 1000.0) / 2000 * 255, 0, 255).astype(np.uint8)
    with pytest.raises(ValueError, match=r'volume: .*intensity="uint8_window"'):
        read_volume(window, affine=AFFINE)
    volume = read_volume(window, affine=AFFINE, intensity="uint8_window")
    torch.testing.assert_close(volume[0].as_tensor() / 1000, torch.from_numpy(window / 255 * 2 - 1).float())


@pytest.mark.parametrize(
    ("array", "affine", "message"),
    [
        (HU[:, :, 0], np.eye(4), r"3-D volume of at least 8 voxels along each axis, got shape \(40, 36\)"),
        (HU[:, :, :1], AFFINE, r"3-D volume .* got shape \(40, 36, 1\)"),
        (np.stack([HU] * 3, -1), AFFINE, r"3-D volume .* got shape \(40, 36, 30, 3\)"),
        (HU, np.diag([0.5, 0.5, 11, 1]), r"at most 20 times the shortest, got 0.5 x 0.5 x 11 mm"),
        (HU, np.diag([1, 1, 15, 1]), r"must measure 0.1 to 12.5 mm.*got 1 x 1 x 15 mm"),
        (HU, np.diag([1, 1, 0, 1]), "no usable voxel size"),
        (HU, np.eye(3), r"affine must be \(4, 4\), got \(3, 3\)"),
    ],
)
def test_unusable_grids(array: np.ndarray, affine: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_volume(array, affine=affine)


def test_unusable_files(tmp_path: Path, path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"gone\.nii\.gz: no such file"):
        read_volume(tmp_path / "gone.nii.gz")
    (tmp_path / "text.nii.gz").write_bytes(gzip.compress(b"not a volume"))
    with pytest.raises(ValueError, match=r"text\.nii\.gz: must be a NIfTI file"):
        read_volume(tmp_path / "text.nii.gz")
    (tmp_path / "cut.nii.gz").write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"cut\.nii\.gz: its voxels cannot be read"):
        read_volume(tmp_path / "cut.nii.gz")
    (tmp_path / "ct.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"ct\.png: must be a NIfTI, NRRD or MetaImage file"):
        read_volume(tmp_path / "ct.png")
    with pytest.raises(ValueError, match="path, nibabel image, MetaTensor or array, got list"):
        read_volume([1, 2])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="affine belongs to an array"):
        read_volume(path, affine=AFFINE)
