"""Volumes as they come, and masks back on their voxels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import rect_tiny_ctrate as tiny
import torch
from rect_tiny_model import tiny_model
from rect_vlm.model import ReCTVLM
from torch import Tensor, nn


class BrightVoxels(nn.Module):
    """Outlines what is brighter than 500 HU."""

    def forward(self, vision: Any, image: Tensor, lesions: Tensor | None = None) -> dict[str, Tensor]:
        return {"logits": 20 * (image > 0.5).float().expand(-1, 5, -1, -1, -1) - 10}


@pytest.fixture(scope="module")
def model() -> ReCTVLM:
    return tiny_model(generator=None)


def test_grids_that_differ_come_back_as_they_are(model: ReCTVLM, tmp_path: Path) -> None:
    lps, turned = (tiny.save(tmp_path / f"{axes}.nii.gz", tiny.chest()[0], axes) for axes in ("LPS", "SLP"))
    masks = model.localize_lesions([lps, turned])["lung_nodule"]
    assert [tuple(mask.shape) for mask in masks] == [tiny.SHAPE, tuple(nib.load(turned).shape)]


@pytest.mark.parametrize("axes", ["RAS", "LPS", "SLP", "IAR"])
def test_a_mask_lies_on_its_lesion_in_the_file(axes: str, tmp_path: Path) -> None:
    hu, lesion, _ = tiny.chest()
    hu[lesion > 0] = 900
    ct = tiny.save(tmp_path / "ct.nii.gz", hu, axes)
    true = nib.load(tiny.save(tmp_path / "lesion.nii.gz", lesion, axes)).get_fdata() > 0
    model = tiny_model(generator=None)
    model.localizer = BrightVoxels()
    found = model.localize_lesions(ct)["lung_nodule"].numpy() > 0
    assert found.shape == true.shape
    assert 2 * (found & true).sum() / (found.sum() + true.sum()) > 0.9


def test_windowed_volumes_are_refused_unless_they_are_said_to_be(model: ReCTVLM) -> None:
    hu = np.clip(tiny.chest()[0], -1000, 1000)
    windowed = ((hu + 1000) / 2000 * 255).astype(np.uint8)
    with pytest.raises(ValueError, match='intensity="uint8_window"'):
        model.classify(windowed, affine=tiny.AFFINE)
    known = model.classify(windowed, affine=tiny.AFFINE, intensity="uint8_window")
    same = model.classify(hu, affine=tiny.AFFINE)
    assert torch.allclose(known["probabilities"], same["probabilities"], atol=0.02)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ct_volume": torch.zeros(1, 1, 8, 8, 8)}, "must be in model space"),
        ({"ct_volume": torch.full((1, 1, *tiny.GEOMETRY.img_size), 40.0)}, "values of -1..1"),
        ({"ct_volume": np.zeros((64, 64)), "affine": np.eye(4)}, "must be a 3-D volume"),
        ({"ct_volume": tiny.chest()[0], "affine": np.eye(3)}, r"affine must be \(4, 4\)"),
        ({"ct_volume": "none.nii.gz"}, "no such file"),
        ({"ct_volume": [tiny.chest()[0]] * 2, "affine": [tiny.AFFINE]}, "one entry for each of 2 volumes"),
        ({"ct_volume": tiny.chest()[0], "localization_threshold": 50}, r"must lie in 0\.\.1"),
        ({"ct_volume": tiny.chest()[0], "report_generation_config": {"beams": 3}}, "got beams"),
        ({"ct_volume": tiny.chest()[0], "segmentation_mask": np.zeros((4, 4, 4))}, "grid of its CT"),
    ],
)
def test_what_cannot_be_predicted_is_said(model: ReCTVLM, arguments: dict, message: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        model.predict(**arguments)
