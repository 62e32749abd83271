"""HU from stored values: right once, and told when not."""

from __future__ import annotations

import numpy as np
import pytest
from rect_tiny_ctrate import chest
from rect_vlm.hu import measure_hu, resolve_source, to_hu, window_to_hu

HU = chest()[0]


def test_raw_values_with_metadata_and_corrected_values_give_the_same_hu() -> None:
    raw = (HU + 1024) / 2
    np.testing.assert_array_equal(to_hu(raw, "metadata", 2.0, -1024.0), to_hu(HU, "nifti", 2.0, -1024.0))


def test_rescaling_twice_is_told_with_what_is_right() -> None:
    with pytest.raises(ValueError, match=r'without rescaling \(hu_source="nifti"\).*would be plausible'):
        to_hu(HU, "metadata", 1.0, -1024.0)


def test_a_mostly_solid_chest_rescaled_twice_is_told_as_well() -> None:
    """Its median, 40 - 1024, would still be that of a lung; its soft tissue is gone."""
    solid = np.where(HU < -500, -1000, 40)
    solid[: len(solid) * 2 // 3] = 40
    assert measure_hu(solid).median == 40
    assert to_hu(solid).max() == 40
    with pytest.raises(ValueError, match=r"0\.0% soft tissue"):
        to_hu(solid, "metadata", 1.0, -1024.0)


def test_raw_values_without_rescale_are_told() -> None:
    with pytest.raises(ValueError, match=r"the metadata 1 \* value -1024 .*would be plausible"):
        to_hu(HU + 1024, "nifti", 1.0, -1024.0)
    with pytest.raises(ValueError, match=r"the usual 1 \* value -1024 it has .*would be plausible"):
        to_hu(HU + 1024)


def test_values_that_no_reading_makes_a_chest() -> None:
    with pytest.raises(ValueError, match="which is no chest either"):
        to_hu(np.full(HU.shape, 5000.0))


@pytest.mark.parametrize(
    ("slope", "intercept", "named"), [(None, -1024, "RescaleSlope"), (1, None, "RescaleIntercept")]
)
def test_missing_rescale(slope: float | None, intercept: float | None, named: str) -> None:
    with pytest.raises(ValueError, match=f"need {named} of the metadata table"):
        to_hu(HU, "metadata", slope, intercept)


def test_windowed_values_are_told_with_the_option() -> None:
    window = np.clip((HU + 1000) / 2000 * 255, 0, 255).astype(np.uint8)
    with pytest.raises(ValueError, match='intensity="uint8_window"'):
        to_hu(window)
    np.testing.assert_allclose(window_to_hu(window), HU.clip(-1000, 1000), atol=8)
    assert window_to_hu(np.array([0.0, 255.0])).tolist() == [-1000, 1000]
    with pytest.raises(ValueError, match=r"needs values of 0\.\.255, got -1\d\d\d"):
        window_to_hu(HU)


def test_values_that_are_not_finite() -> None:
    broken = HU.astype(np.float32)
    broken[3, 3, 3] = np.nan
    with pytest.raises(ValueError, match="finite values only, 1 are not"):
        to_hu(broken)


def test_auto_goes_by_the_folder() -> None:
    assert resolve_source("auto", "train_fixed/train_1/train_1_a/train_1_a_1.nii.gz") == "nifti"
    assert resolve_source("auto", "train/train_1/train_1_a/train_1_a_1.nii.gz") == "metadata"
    assert resolve_source("metadata", "train_fixed/x.nii.gz") == "metadata"
