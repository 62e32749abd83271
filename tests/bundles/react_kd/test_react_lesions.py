"""The lesion model: geometry, CT contrast, uptake by grade, and PET physics against closed forms."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from react_kd.lesions import (
    DEFAULT_PARAMS,
    Lesion,
    acquire_pet,
    draw_lesions,
    insert_ct,
    mass_mask,
    resample_to_pet_grid,
    uptake,
)
from scipy import ndimage

SPACING = (3.0, 3.5, 5.0)
SHAPE = (60, 50, 32)
IDENTITY = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


def _grid() -> list[np.ndarray]:
    return np.meshgrid(*[np.arange(n) * s for n, s in zip(SHAPE, SPACING, strict=True)], indexing="ij")


def _ball(center: tuple, radius: float) -> np.ndarray:
    return sum((g - c) ** 2 for g, c in zip(_grid(), center, strict=True)) < radius**2


LIVER = _ball((90, 85, 78), 65)
BODY = np.ones(SHAPE, dtype=bool)


@pytest.mark.parametrize("seed", range(12))
def test_lesions_are_separate_and_inside_the_liver(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lesions = draw_lesions(rng, LIVER, SPACING, seed % 3)
    assert 1 <= len(lesions) <= 4
    shortest, longest = DEFAULT_PARAMS.radius_mm
    assert all(shortest <= max(lesion.radii_mm) <= longest for lesion in lesions)
    mass = mass_mask(lesions, LIVER, SPACING)
    _, parts = ndimage.label(mass, np.ones((3, 3, 3)))
    assert parts == len(lesions)
    for lesion in lesions:
        box = lesion.box(SHAPE, SPACING, 0.0)
        assert not (lesion.membership(box, SPACING, 1e-6) > 0.5)[~LIVER[box]].any()


def test_the_same_seed_draws_the_same_lesions_and_another_does_not() -> None:
    first, again, other = (draw_lesions(np.random.default_rng(s), LIVER, SPACING, 1) for s in (3, 3, 4))
    assert first == again
    assert first != other


def test_the_mask_has_the_volume_of_the_ellipsoid() -> None:
    lesion = Lesion((90.0, 85.0, 78.0), (28.0, 24.0, 21.0), IDENTITY)
    volume = mass_mask([lesion], LIVER, SPACING).sum() * np.prod(SPACING)
    assert volume == pytest.approx(4 / 3 * np.pi * 28 * 24 * 21, rel=0.03)


def test_a_lesion_smaller_than_a_voxel_keeps_one() -> None:
    lesion = Lesion((90.0, 84.0, 75.0), (0.5, 0.5, 0.5), IDENTITY)
    assert mass_mask([lesion], LIVER, SPACING).sum() == 1


def test_ct_changes_inside_the_lesions_only_and_by_grade() -> None:
    ct = np.where(LIVER, 100.0, 40.0) + np.random.default_rng(0).normal(0, 5, SHAPE)
    means = []
    for grade in range(3):
        shifts = []
        for seed in range(24):
            rng = np.random.default_rng([grade, seed])
            lesions = draw_lesions(rng, LIVER, SPACING, grade)
            out = insert_ct(ct, LIVER, lesions, SPACING, grade, rng)
            inside = mass_mask(lesions, LIVER, SPACING) > 0
            near = ndimage.distance_transform_edt(~inside, sampling=SPACING) <= 3 * max(SPACING)
            np.testing.assert_array_equal(out[~near], ct.astype(np.float32)[~near])
            shifts.append(float(out[inside].mean() - ct[inside].mean()))
        means.append(np.mean(shifts))
    # Weak on purpose: the order of the means is the signal, the spread within a grade exceeds their distance.
    assert means[0] > means[1] > means[2]
    assert np.std(shifts) > 0.5 * (means[0] - means[2]) / 2


def test_a_vessel_under_a_lesion_is_removed() -> None:
    ct = np.where(LIVER, 100.0, 40.0)
    ct[30, 24, :] = 300.0
    quiet = {"contrast_case_sd": 0.0, "contrast_lesion_sd": 0.0, "texture_case_sd": 0.0}
    params = dataclasses.replace(DEFAULT_PARAMS, texture_hu=(0.0, 0.0, 0.0), **quiet)
    lesion = Lesion((90.0, 84.0, 78.0), (28.0, 28.0, 28.0), IDENTITY)
    out = insert_ct(ct, LIVER, [lesion], SPACING, 1, np.random.default_rng(0), params)
    assert out[30, 24, 15] == pytest.approx(100 + params.contrast_hu[1] + params.residual_hu, abs=0.1)
    assert out[30, 25, 15] == pytest.approx(100 + params.contrast_hu[1], abs=0.1)
    assert out[30, 24, 0] == 300.0


@pytest.mark.parametrize(("tracer", "hot_grade", "cold_grade"), [("fdg", 2, 0), ("act", 0, 2)])
def test_uptake_follows_the_grade(tracer: str, hot_grade: int, cold_grade: int) -> None:
    def ratio(grade: int) -> float:
        values = []
        for seed in range(30):
            rng = np.random.default_rng([grade, seed])
            lesions = draw_lesions(rng, LIVER, SPACING, grade)
            suv = uptake({"body": BODY, "liver": LIVER}, lesions, SPACING, grade, tracer, rng)
            values.append(np.median(suv[mass_mask(lesions, LIVER, SPACING) > 0]) / np.median(suv[LIVER]))
        return float(np.mean(values))

    assert ratio(hot_grade) > 1.5 * ratio(cold_grade)


def test_uptake_paints_organs_in_order_and_needs_body_and_liver() -> None:
    lung = _ball((90, 85, 140), 30)
    organs = {"body": BODY, "lung": lung, "liver": LIVER}
    params = dataclasses.replace(DEFAULT_PARAMS, fdg=dataclasses.replace(DEFAULT_PARAMS.fdg, organ_cv=0.0))
    suv = uptake(organs, [], SPACING, 0, "fdg", np.random.default_rng(0), params)
    assert np.unique(suv[LIVER]).tolist() == [pytest.approx(2.2)]
    assert np.unique(suv[lung & ~LIVER]).tolist() == [pytest.approx(0.5)]
    with pytest.raises(ValueError, match="missing \\['liver'\\]"):
        uptake({"body": BODY}, [], SPACING, 0, "fdg", np.random.default_rng(0))


def test_the_pet_grid_keeps_world_coordinates() -> None:
    affine = np.array([[-3.0, 0, 0, 20], [0, 3.5, 0, -7], [0, 0, 5, 3], [0, 0, 0, 1]])
    index = np.indices(SHAPE).reshape(3, -1)
    world_x = (affine[:3, :3] @ index + affine[:3, 3:])[0].reshape(SHAPE)
    pet, pet_affine = resample_to_pet_grid(world_x, affine, (5.0, 5.0))
    assert np.linalg.norm(pet_affine[:3, :3], axis=0) == pytest.approx([5, 5, 5])
    pet_index = np.indices(pet.shape).reshape(3, -1)
    expected = (pet_affine[:3, :3] @ pet_index + pet_affine[:3, 3:])[0].reshape(pet.shape)
    np.testing.assert_allclose(pet[1:-1], expected[1:-1], atol=1e-3)
    corner = affine @ [-0.5, -0.5, -0.5, 1]
    np.testing.assert_allclose(pet_affine @ [-0.5, -0.5, -0.5, 1], corner, atol=1e-9)


def test_the_blur_has_the_stated_width() -> None:
    params = dataclasses.replace(DEFAULT_PARAMS, counts_per_suv_ml=1e12, pet_spacing_mm=(1.0, 1.0))
    point = np.zeros((61, 61, 61))
    point[30, 30, 30] = 1000.0
    pet, _ = acquire_pet(point, np.eye(4), np.random.default_rng(0), params)
    profile = pet.sum((1, 2)) / pet.sum()
    variance = (profile * (np.arange(61) - 30) ** 2).sum()
    assert np.sqrt(8 * np.log(2) * variance) == pytest.approx(6.0, rel=0.03)


def test_noise_is_poisson_and_does_not_bias() -> None:
    params = dataclasses.replace(DEFAULT_PARAMS, filter_fwhm_mm=0.0, pet_spacing_mm=(3.0, 3.5))
    affine = np.diag([*SPACING, 1.0])
    flat = np.full(SHAPE, 2.0)
    pet, _ = acquire_pet(flat, affine, np.random.default_rng(0), params)
    counts = params.counts_per_suv_ml * np.prod(SPACING) / 1000 * 2.0
    assert pet.mean() == pytest.approx(2.0, rel=0.01)
    assert pet.std() / pet.mean() == pytest.approx(1 / np.sqrt(counts), rel=0.05)


def test_bad_input_is_refused() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="empty mask"):
        draw_lesions(rng, np.zeros(SHAPE), SPACING, 0)
    with pytest.raises(ValueError, match="its largest has"):
        draw_lesions(rng, _ball((90, 85, 78), 7), SPACING, 0)
    with pytest.raises(ValueError, match="grade must be"):
        draw_lesions(rng, LIVER, SPACING, 3)
    with pytest.raises(ValueError, match='"fdg" or "act"'):
        uptake({"body": BODY, "liver": LIVER}, [], SPACING, 0, "psma", rng)
