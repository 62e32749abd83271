"""Physics of the simulated dose: what the noise is, what it depends on, and what it leaves alone."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from react_kd.dose_simulation import PHOTON_LEVELS, simulate_low_dose
from react_kd.scanner import NoiseModel

MODELS: tuple[NoiseModel, ...] = ("beer_lambert", "linear")
SPACING = (4.0, 4.0, 4.0)
SIZE = 64


def radius_mm(size: int = SIZE, pixel: float = 4.0) -> np.ndarray:
    axis = (np.arange(size) - size // 2) * pixel
    return np.hypot(axis[:, None], axis[None, :])


def water_cylinder(
    size: int = SIZE, pixel: float = 4.0, radius: float = 100.0, planes: int = 2
) -> np.ndarray:
    """Water in air, (size, size, planes) HU, with partial volume at the edge."""
    share = np.clip((radius - radius_mm(size, pixel)) / pixel + 0.5, 0, 1)
    return np.repeat((1000 * share - 1000)[..., None], planes, axis=2).astype(np.float32)


def noise_sd(volume: np.ndarray, where: np.ndarray, photons: float, **options: Any) -> float:
    """Standard deviation of the pure noise: two seeds, so that all that is not noise cancels."""
    first = simulate_low_dose(volume, SPACING, photons, seed=1, **options)
    second = simulate_low_dose(volume, SPACING, photons, seed=2, **options)
    return float((first - second)[where].std() / np.sqrt(2))


CENTRE = radius_mm() < 60


@pytest.mark.parametrize(("size", "pixel"), [(64, 4.0), (65, 4.0), (90, 2.8)])
def test_water_comes_back_within_10_hu_without_noise(size: int, pixel: float) -> None:
    scan = simulate_low_dose(water_cylinder(size, pixel), (pixel, pixel, 3.0), 1e12)
    inside = scan[radius_mm(size, pixel) < 90]
    assert np.abs(inside).max() < 10
    assert abs(inside.mean()) < 1
    assert np.abs(scan[radius_mm(size, pixel) > 115] + 1000).max() < 20


@pytest.mark.parametrize("model", MODELS)
def test_noise_grows_as_the_dose_falls(model: NoiseModel) -> None:
    thin = water_cylinder(radius=60)  # no starved rays at the lowest dose, where noise would saturate
    levels = [noise_sd(thin, radius_mm() < 40, photons, model=model) for photons in PHOTON_LEVELS]
    assert levels == sorted(levels)
    assert all(low > 1.2 * high for high, low in pairwise(levels))


@pytest.mark.parametrize("model", MODELS)
def test_noise_variance_is_inverse_to_the_photons(model: NoiseModel) -> None:
    volume = water_cylinder(planes=4)
    ratio = noise_sd(volume, CENTRE, 1e5, model=model) / noise_sd(volume, CENTRE, 1e6, model=model)
    assert ratio**2 == pytest.approx(10, rel=0.2)


def test_noise_grows_with_the_path_through_the_body() -> None:
    small, large = water_cylinder(radius=60), water_cylinder(radius=110)
    assert noise_sd(large, radius_mm() < 40, 1e5) > 1.5 * noise_sd(small, radius_mm() < 40, 1e5)


def test_noise_in_air_has_the_variance_of_theory() -> None:
    # In air every ray counts `photons`, so its line integral has the variance 1 / photons. The Ram-Lak filter
    # |f|, |f| < 1/2, and linear interpolation at a uniform offset make of it
    # 2/3 * integral(f**2) + 1/3 * integral(f**2 * cos(2 pi f)) = 1/18 - 1/(6 pi**2).
    air = np.full((SIZE, SIZE, 4), -1000, np.float32)
    n_angles, photons = 256, 1e5
    variance = (np.pi**2 / n_angles / photons) * (1 / 18 - 1 / (6 * np.pi**2))
    expected = 1000 / (0.0192 * SPACING[0]) * np.sqrt(variance)
    measured = noise_sd(air, CENTRE, photons, filter_name="ram-lak", n_angles=n_angles)
    assert measured == pytest.approx(expected, rel=0.05)


def test_metal_elsewhere_changes_the_noise_of_the_linear_model_only() -> None:
    plain = water_cylinder(planes=4)
    metal = plain.copy()
    metal[14, 32] = 3000
    distant = np.zeros((SIZE, SIZE), bool)
    distant[38:48, 27:38] = True
    change = {
        m: noise_sd(metal, distant, 1e4, model=m) / noise_sd(plain, distant, 1e4, model=m) for m in MODELS
    }
    assert change["beer_lambert"] == pytest.approx(1, abs=0.2)
    assert change["linear"] > 1.5


@pytest.mark.parametrize("model", MODELS)
def test_the_same_seed_gives_the_same_volume_and_another_one_does_not(model: NoiseModel) -> None:
    volume = water_cylinder()
    first = simulate_low_dose(volume, SPACING, 1e4, model=model, seed=5)
    assert np.array_equal(first, simulate_low_dose(volume, SPACING, 1e4, model=model, seed=5))
    assert not np.allclose(first, simulate_low_dose(volume, SPACING, 1e4, model=model, seed=6), atol=0.1)


@pytest.mark.parametrize("model", MODELS)
def test_a_plane_depends_on_that_plane_alone(model: NoiseModel) -> None:
    volume = water_cylinder(planes=3)
    changed = volume.copy()
    changed[20:40, 20:40, 0] = 500
    before = simulate_low_dose(volume, SPACING, 1e4, model=model)
    after = simulate_low_dose(changed, SPACING, 1e4, model=model)
    assert np.allclose(before[..., 1:], after[..., 1:], atol=1e-2)
    assert not np.allclose(before[..., 0], after[..., 0], atol=10)
    assert not np.allclose(before[..., 1], before[..., 2], atol=1)


def test_many_planes_are_scanned_like_few() -> None:
    volume = water_cylinder(16, 12.0, planes=40)
    whole = simulate_low_dose(volume, (12, 12, 3), 1e4)
    assert np.allclose(whole[..., :33], simulate_low_dose(volume[..., :33], (12, 12, 3), 1e4), atol=1e-2)


def test_electronic_noise_adds_to_starved_rays() -> None:
    volume = water_cylinder(radius=110)
    assert noise_sd(volume, CENTRE, 5e3, electronic_sigma=10) > 1.1 * noise_sd(volume, CENTRE, 5e3)


@pytest.mark.parametrize("model", MODELS)
def test_non_square_slices_keep_their_shape_and_content(model: NoiseModel) -> None:
    volume = water_cylinder()[:, 10:50]
    scan = simulate_low_dose(volume, SPACING, 1e8, model=model, filter_name="hann")
    assert scan.shape == volume.shape
    assert np.abs(scan[24:40, 16:28]).max() < 20
    assert scan[:6].max() < -900


def test_tissue_in_the_corners_is_scanned_too() -> None:
    block = np.full((48, 48, 1), 40.0, np.float32)
    scan = simulate_low_dose(block, SPACING, 1e7)
    assert np.abs(scan[4:10, 4:10] - 40).max() < 25
    assert np.abs(scan[20:28, 20:28] - 40).max() < 25


def test_padding_of_the_scanner_is_given_back_and_counts_as_air() -> None:
    volume = water_cylinder()
    padded = volume.copy()
    outside = radius_mm() > 120
    padded[outside] = -3024
    scan = simulate_low_dose(padded, SPACING, 1e5)
    assert (scan[outside] == -3024).all()
    expected = simulate_low_dose(np.where(outside[..., None], -1024, volume), SPACING, 1e5)
    assert np.array_equal(scan[~outside], expected[~outside])


def test_unequal_pixels_are_scanned_in_millimetres() -> None:
    stretched = water_cylinder()[:, ::2]
    scan = simulate_low_dose(stretched, (4.0, 8.0, 4.0), 1e8)
    assert scan.shape == stretched.shape
    assert np.abs(scan[24:40, 12:20]).max() < 10
    wrong = simulate_low_dose(stretched, (4.0, 4.0, 4.0), 1e4, seed=1)
    right = simulate_low_dose(stretched, (4.0, 8.0, 4.0), 1e4, seed=1)
    assert right[24:40, 12:20].std() > 1.2 * wrong[24:40, 12:20].std()


@pytest.mark.parametrize("dtype", [np.int16, np.float32, np.float64])
def test_arrays_and_tensors_give_the_same_float32(dtype: type) -> None:
    volume = water_cylinder().astype(dtype)
    scan = simulate_low_dose(volume, SPACING, 1e4)
    tensor = simulate_low_dose(torch.from_numpy(volume), SPACING, 1e4)
    assert scan.dtype == np.float32
    assert tensor.dtype == torch.float32
    assert np.array_equal(scan, tensor.numpy())


@pytest.mark.parametrize("model", MODELS)
def test_a_constant_slice_stays_finite(model: NoiseModel) -> None:
    assert np.isfinite(simulate_low_dose(np.full((16, 16, 1), -1000.0), SPACING, 500, model=model)).all()


BAD: list[tuple[dict[str, Any], str]] = [
    ({"volume_hu": np.zeros((4, 4))}, r"\(X, Y, Z\)"),
    ({"volume_hu": np.full((4, 4, 1), np.nan)}, "got 16 NaN"),
    ({"spacing_mm": (1.0, 0.0, 1.0)}, r"got \(1.0, 0.0, 1.0\)"),
    ({"photons": 0}, "got 0"),
    ({"model": "gauss"}, "got 'gauss'"),
    ({"filter_name": "cosine"}, "got 'cosine'"),
    ({"n_angles": 10}, "n_angles=10"),
    ({"model": "linear", "electronic_sigma": 5.0}, "got 5.0 in 'linear'"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_a_bad_argument_is_named(change: dict[str, Any], message: str) -> None:
    good: dict[str, Any] = {"volume_hu": np.zeros((16, 16, 1)), "spacing_mm": SPACING, "photons": 1e4}
    with pytest.raises(ValueError, match=message):
        simulate_low_dose(**{**good, **change})
