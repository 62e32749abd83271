"""Physics of the simulated dose: what the noise is, what it depends on, and what it leaves alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from react_kd.low_dose import PHOTON_LEVELS, simulate_dose_levels, simulate_low_dose
from react_kd.scanner import NoiseModel, stable_seed

MODELS: tuple[NoiseModel, ...] = ("beer_lambert", "linear")
SPACING = (4.0, 4.0, 4.0)
SIZE = 64


def radius_mm(size: int = SIZE, pixel: float = 4.0) -> np.ndarray:
    axis = (np.arange(size) - size // 2) * pixel
    return np.hypot(axis[:, None], axis[None, :])


def water_cylinder(size: int = SIZE, pixel: float = 4.0, radius: float = 100.0, planes: int = 2) -> np.ndarray:
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
    assert all(low > 1.2 * high for high, low in zip(levels, levels[1:], strict=False))


@pytest.mark.parametrize("model", MODELS)
def test_noise_variance_is_inverse_to_the_photons(model: NoiseModel) -> None:
    volume = water_cylinder(planes=4)
    ratio = noise_sd(volume, CENTRE, 1e5, model=model) / noise_sd(volume, CENTRE, 1e6, model=model)
    assert ratio**2 == pytest.approx(10, rel=0.2)


def test_noise_grows_with_the_path_through_the_body() -> None:
    small, large = water_cylinder(radius=60), water_cylinder(radius=110)
    assert noise_sd(large, radius_mm() < 40, 1e5) > 1.5 * noise_sd(small, radius_mm() < 40, 1e5)


def test_noise_of_a_thin_object_follows_poisson_statistics() -> None:
    # In air every ray counts `photons`, so the line integrals have variance 1 / photons and white-noise theory
    # gives sd = 1000 / (water * pixel) * sqrt(pi**2 / n_angles / photons * mean of the squared filter * blur).
    air = np.full((SIZE, SIZE, 4), -1000, np.float32)
    sd = noise_sd(air, CENTRE, 1e5, filter_name="ram-lak", n_angles=128)
    squared_ramp = 1 / 12  # mean of f**2 over |f| < 1/2
    interpolation = 2 / 3  # mean of (1 - w)**2 + w**2, less the correlation of neighbours, below
    neighbours = -1 / (np.pi**2) / 4 / (1 / 12) / 2
    assert interpolation + neighbours > 0
    white = 1000 / (0.0192 * 4) * np.sqrt(np.pi**2 / 128 / 1e5 * squared_ramp)
    assert 0.5 * white < sd < white


def test_metal_elsewhere_changes_the_noise_of_the_linear_model_only() -> None:
    plain = water_cylinder(planes=4)
    metal = plain.copy()
    metal[14, 32] = 3000
    distant = np.zeros((SIZE, SIZE), bool)
    distant[38:48, 27:38] = True
    change = {m: noise_sd(metal, distant, 1e4, model=m) / noise_sd(plain, distant, 1e4, model=m) for m in MODELS}
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


def test_the_full_dose_is_a_copy() -> None:
    volume = water_cylinder()
    scan = simulate_low_dose(volume, SPACING, None)
    assert np.array_equal(scan, volume)
    assert not np.shares_memory(scan, volume)


def test_levels_together_equal_levels_apart() -> None:
    volume = torch.from_numpy(water_cylinder())
    together = simulate_dose_levels(volume, SPACING, (1e4, None, 1e3), (1, 2, 3))
    assert torch.equal(together[0], simulate_low_dose(volume, SPACING, 1e4, seed=1))
    assert torch.equal(together[1], volume)
    assert torch.equal(together[2], simulate_low_dose(volume, SPACING, 1e3, seed=3))


def test_electronic_noise_adds_to_starved_rays() -> None:
    volume = water_cylinder(radius=110)
    assert noise_sd(volume, CENTRE, 5e3, electronic_sigma=10) > 1.1 * noise_sd(volume, CENTRE, 5e3)


@pytest.mark.parametrize("model", MODELS)
def test_non_square_slices_keep_their_shape_and_content(model: NoiseModel) -> None:
    volume = water_cylinder()[:, 10:50]
    scan = simulate_low_dose(volume, SPACING, 1e8, model=model, filter_name="hann")
    assert scan.shape == volume.shape
    assert np.abs(scan[24:40, 16:28]).max() < 20
    assert not np.allclose(scan, simulate_low_dose(volume.transpose(1, 0, 2), SPACING, 1e8, model=model).transpose(1, 0, 2))


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
    square, stretched = water_cylinder(), water_cylinder()[:, ::2]
    scan = simulate_low_dose(stretched, (4.0, 8.0, 4.0), 1e8)
    assert scan.shape == stretched.shape
    assert np.abs(scan[24:40, 12:20]).max() < 10
    wrong = simulate_low_dose(stretched, (4.0, 4.0, 4.0), 1e4, seed=1)
    right = simulate_low_dose(stretched, (4.0, 8.0, 4.0), 1e4, seed=1)
    assert right[24:40, 12:20].std() > 1.2 * wrong[24:40, 12:20].std()
    assert square.shape[1] == 2 * stretched.shape[1]


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


def test_seeds_are_stable_and_distinct() -> None:
    assert stable_seed(0, "case-1", 50000.0) == stable_seed(0, "case-1", 50000.0)
    seeds = {stable_seed(a, b) for a in range(20) for b in range(20)}
    assert len(seeds) == 400
    assert all(0 <= seed < 2**63 for seed in seeds)
