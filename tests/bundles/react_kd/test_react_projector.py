"""The sparse projector against a plain ray-by-ray one and against scikit-image."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from react_kd import projector
from react_kd.projector import ParallelBeam, filter_sinogram, parallel_beam
from scipy.ndimage import gaussian_filter
from skimage.transform import iradon, radon

SIZES = (24, 33)  # one even, one odd
ANGLES = 40


def smooth_image(size: int) -> np.ndarray:
    image = np.pad(np.random.default_rng(0).random((size - 8, size - 8)), 4)
    return 10 * gaussian_filter(image, 1.5, mode="constant")


def stack(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image)[None].float()


def plain_projection(image: np.ndarray, beam: ParallelBeam) -> np.ndarray:
    """Joseph's method one ray at a time, in float64, without symmetries: (angles, detectors)."""
    axis = np.arange(beam.size) - beam.size // 2
    padded_axis = np.arange(axis[0] - 1, axis[-1] + 2)  # the value falls to 0 over one pixel
    padded = np.pad(image, 1)
    lines = np.zeros((beam.n_angles, beam.n_detectors))
    for view, angle in enumerate(beam.angles.tolist()):
        cos, sin = math.cos(angle), math.sin(angle)
        for detector in range(beam.n_detectors):
            t = detector - beam.n_detectors // 2
            if abs(cos) > abs(sin):  # one sample per row
                samples = [
                    np.interp((t + sin * r) / cos, padded_axis, padded[1 + i], 0, 0)
                    for i, r in enumerate(axis)
                ]
            else:
                samples = [
                    np.interp((cos * c - t) / sin, padded_axis, padded[:, 1 + i], 0, 0)
                    for i, c in enumerate(axis)
                ]
            lines[view, detector] = sum(samples) / max(abs(cos), abs(sin))
    return lines


def plain_backprojection(lines: np.ndarray, beam: ParallelBeam) -> np.ndarray:
    axis = np.arange(beam.size) - beam.size // 2
    detectors = np.arange(beam.n_detectors) - beam.n_detectors // 2
    angles = beam.angles.tolist()
    positions = [math.cos(a) * axis[None, :] - math.sin(a) * axis[:, None] for a in angles]
    return sum(np.interp(t, detectors, line) for t, line in zip(positions, lines, strict=True))


def on_detector_of(beam: ParallelBeam, sinogram: np.ndarray) -> np.ndarray:
    """scikit-image's (detectors, angles) as (angles, detectors) on the detector of ``beam``."""
    shift = beam.n_detectors // 2 - sinogram.shape[0] // 2
    padded = np.zeros((beam.n_angles, beam.n_detectors))
    padded[:, shift : shift + sinogram.shape[0]] = sinogram.T
    return padded


@pytest.mark.parametrize("size", SIZES)
def test_projection_equals_the_plain_one_ray_by_ray(size: int) -> None:
    beam, image = ParallelBeam(size, 8), np.random.default_rng(0).random((size, size))
    lines = beam.project(stack(image))[0].numpy()
    plain = plain_projection(image, beam)
    assert np.abs(lines - plain).max() < 1e-5 * plain.max()


@pytest.mark.parametrize("size", SIZES)
def test_backprojection_equals_the_plain_one(size: int) -> None:
    beam = ParallelBeam(size, 8)
    lines = np.random.default_rng(1).random((8, beam.n_detectors))
    plain = plain_backprojection(lines, beam)
    assert np.abs(beam.backproject(stack(lines))[0].numpy() - plain).max() < 1e-5 * plain.max()


@pytest.mark.parametrize("size", SIZES)
def test_projection_agrees_with_scikit_image_radon(size: int) -> None:
    # scikit-image samples a turned image, Joseph's method the rows or columns: the same up to interpolation.
    beam, image = parallel_beam(size, ANGLES), smooth_image(size)
    expected = on_detector_of(beam, radon(image, theta=np.rad2deg(beam.angles.numpy()), circle=False))
    difference = beam.project(stack(image))[0].numpy() - expected
    assert np.abs(difference).max() < 0.01 * expected.max()
    assert np.sqrt((difference**2).mean()) < 0.002 * expected.max()


# scikit-image's Hann window is not quite symmetric in frequency, hence the wider bound.
@pytest.mark.parametrize(("ours", "theirs", "bound"), [("ram-lak", "ramp", 1e-5), ("hann", "hann", 2e-3)])
@pytest.mark.parametrize("size", SIZES)
def test_reconstruction_equals_scikit_image_iradon(size: int, ours: str, theirs: str, bound: float) -> None:
    beam = parallel_beam(size, ANGLES)
    degrees = np.rad2deg(beam.angles.numpy())
    lines = on_detector_of(beam, radon(smooth_image(size), theta=degrees, circle=False))
    expected = iradon(lines.T, theta=degrees, circle=False, output_size=size, filter_name=theirs)
    reconstructed = beam.reconstruct(stack(lines), ours)[0].numpy()
    assert np.abs(reconstructed - expected).max() < bound * np.abs(expected).max()


def test_reconstruction_returns_a_smooth_image() -> None:
    grid = np.arange(64) - 32
    image = np.exp(-((grid[:, None] - 5) ** 2 / 80 + (grid[None, :] + 9) ** 2 / 160))
    beam = parallel_beam(64, 96)
    assert np.abs(beam.reconstruct(beam.project(stack(image)))[0].numpy() - image).max() < 0.01


def test_each_view_keeps_the_mass_of_the_image() -> None:
    beam, image = parallel_beam(33, ANGLES), smooth_image(33)
    mass = beam.project(stack(image))[0].sum(1).numpy()
    assert mass == pytest.approx(np.full(ANGLES, image.sum()), rel=1e-3)


def test_corners_of_the_square_are_seen() -> None:
    image = np.zeros((24, 24))
    image[0, 0] = image[0, -1] = image[-1, 0] = image[-1, -1] = 1.0
    beam = parallel_beam(24, ANGLES)
    lines = beam.project(stack(image))[0]
    assert lines.sum(1).min() > 2
    assert beam.reconstruct(lines[None])[0][0, 0] > 0.3


def test_slices_are_independent_and_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.rand(5, 24, 24)
    whole = parallel_beam(24, ANGLES)
    monkeypatch.setattr(projector, "_CACHED_FLOATS", 2 * 4 * 25**2)  # two slices at a time
    blocked = ParallelBeam(24, ANGLES)
    lines = whole.project(images)
    assert torch.allclose(blocked.project(images), lines, atol=1e-5)
    assert torch.allclose(blocked.reconstruct(lines), whole.reconstruct(lines), atol=1e-5)
    assert torch.allclose(whole.project(images[3:4])[0], lines[3], atol=1e-5)


def test_ramp_filter_removes_the_mean_and_keeps_an_impulse() -> None:
    impulse = torch.zeros(1, 1, 101)
    impulse[..., 50] = 1.0
    response = filter_sinogram(impulse, "ram-lak")[0, 0]
    assert response[50] == pytest.approx(0.25, abs=1e-6)
    assert response[51] == pytest.approx(-1 / math.pi**2, abs=1e-6)
    assert response[52].abs() < 1e-6
    assert response.sum().abs() < 5e-3
    assert filter_sinogram(impulse, "hann")[0, 0, 50] < 0.15


def test_a_512_grid_works() -> None:
    grid = torch.arange(512) - 256
    disc = (grid[:, None] ** 2 + grid[None, :] ** 2 < 200**2).float()
    beam = ParallelBeam(512, 8)
    centre = beam.project(disc[None])[0, :, beam.n_detectors // 2]
    assert centre.numpy() == pytest.approx(np.full(8, 400.0), abs=3)


def test_two_geometries_are_kept() -> None:
    first, second = parallel_beam(8, 4), parallel_beam(9, 4)
    assert parallel_beam(8, 4) is first
    assert parallel_beam(9, 4) is second
    parallel_beam(10, 4)
    assert parallel_beam(8, 4) is not first


@pytest.mark.parametrize(("size", "angles"), [(1, 8), (16, 6), (16, 0), (16, -4)])
def test_a_geometry_out_of_range_is_refused(size: int, angles: int) -> None:
    with pytest.raises(ValueError, match=f"size={size}, n_angles={angles}"):
        ParallelBeam(size, angles)


def test_a_stack_of_another_shape_and_an_unknown_filter_are_refused() -> None:
    beam = parallel_beam(16, 8)
    with pytest.raises(ValueError, match=r"slices must have shape \(B, 16, 16\), got \(16, 16\)"):
        beam.project(torch.zeros(16, 16))
    with pytest.raises(ValueError, match=r"sinogram must have shape \(B, 8, "):
        beam.reconstruct(torch.zeros(1, 9, beam.n_detectors))
    with pytest.raises(ValueError, match="got 'shepp'"):
        filter_sinogram(torch.zeros(1, 8, 27), "shepp")  # type: ignore[arg-type]
