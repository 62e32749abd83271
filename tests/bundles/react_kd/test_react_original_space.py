"""The way back: maps on the network's grid land on the CT's own grid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from monai.transforms import Invertd
from react_case_files import AFFINE, LIVER, SHAPE, write_case
from react_kd.transforms import preprocessing, to_original_space

SIZE = (24, 20, 12)


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * (a & b).sum() / (a.sum() + b.sum())


@pytest.mark.parametrize("roi", ["full", "liver_crop"])
@pytest.mark.parametrize("spacing", [None, (2.0, 2.0, 4.0)])
def test_maps_return_to_the_original_ct(tmp_path: Path, roi: str, spacing: tuple | None) -> None:
    pre = preprocessing(size=(36, 32, 24), roi=roi, spacing=spacing, keep_meta=True)
    sample = pre(write_case(tmp_path))
    volume = sample["liver"].float()
    ours = to_original_space(pre, sample["image"], volume, nearest=True)
    smooth = to_original_space(pre, sample["image"], volume)
    monai = Invertd("map", pre, orig_keys="image", nearest_interp=False)(
        {"map": volume, "image": sample["image"]}
    )
    for back in (ours, smooth, monai["map"]):
        assert back.shape == (1, *SHAPE)
        np.testing.assert_allclose(back.affine, AFFINE, atol=1e-6)
        assert dice(np.asarray(back)[0] > 0.5, LIVER) > 0.93
    assert set(np.unique(ours)) == {0.0, 1.0}


def test_way_back_needs_history_and_grid(tmp_path: Path) -> None:
    case = write_case(tmp_path)
    pre = preprocessing(size=SIZE, keep_meta=True)
    image = pre(case)["image"]
    with pytest.raises(ValueError, match="keep_meta=True"):
        to_original_space(pre, preprocessing(size=SIZE)(case)["image"], image)
    with pytest.raises(ValueError, match=r"grid \(24, 20, 12\), got \(4, 4, 4\)"):
        to_original_space(pre, image, torch.zeros(1, 4, 4, 4))
