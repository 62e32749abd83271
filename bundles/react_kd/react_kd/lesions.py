"""Simulated liver lesions: where they lie, how they look on CT, what they take up on PET.

Shared by the simulated cohort and by the real-CT cohort. Arrays are (X, Y, Z) on the CT grid, `spacing_mm` is
the voxel size along each axis, CT in HU, PET in SUV (g/mL). Grades: 0 well, 1 moderately, 2 poorly
differentiated. The direction of the PET signal is clinical: well-differentiated disease takes up acetate,
poorly differentiated disease FDG (Ho et al., J Nucl Med 44:213, 2003). The sizes of effects are our choice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Triple = tuple[float, float, float]
FWHM_TO_SIGMA = 1.0 / 2.3548200450309493


@dataclass(frozen=True)
class TracerParams:
    """What one tracer does in organs and lesions; each `organ_suv` key names a mask passed to `uptake`."""

    organ_suv: tuple[tuple[str, float], ...]  # mean SUV; painted in this order, later over earlier
    lesion_ratio: Triple  # mean lesion-to-liver uptake ratio by grade (well, moderate, poor)
    ratio_case_sd: float = 0.35  # spread of that ratio between patients of one grade: overlap of the grades
    ratio_lesion_sd: float = 0.15  # further spread between the lesions of one patient
    ratio_min: float = 0.4  # floor of the ratio (a cold lesion is never empty)
    core_ratio: float = 0.45  # uptake of a necrotic core over the uptake of its rim
    organ_cv: float = 0.10  # patient-to-patient coefficient of variation of every organ SUV


@dataclass(frozen=True)
class LesionParams:
    """All numbers of the lesion model; the defaults make CT weak with overlap and PET strong."""

    # Geometry
    count_probability: tuple[float, ...] = (0.45, 0.30, 0.15, 0.10)  # of 1, 2, 3, 4 lesions
    radius_mm: tuple[float, float] = (12.0, 32.0)  # longest half-axis, log-uniform between these
    axis_ratio: tuple[float, float] = (0.75, 1.0)  # each other half-axis over the longest
    gap_mm: float = 4.0  # smallest distance between the surfaces of two lesions
    edge_mm: float = 3.0  # width over which a lesion fades into the liver
    core_probability: Triple = (0.15, 0.25, 0.40)  # chance of a necrotic core by grade
    core_radius_mm: float = 12.0  # lesions with a smaller longest half-axis have no core
    core_size: tuple[float, float] = (0.35, 0.60)  # half-axes of the core over those of the lesion
    # CT
    contrast_hu: Triple = (14.0, -8.0, -34.0)  # mean lesion minus liver by grade, HU
    contrast_case_sd: float = 16.0  # spread of that contrast between patients of one grade, HU
    contrast_lesion_sd: float = 6.0  # further spread between the lesions of one patient, HU
    texture_hu: Triple = (5.0, 9.0, 14.0)  # mean standard deviation of the texture by grade, HU
    texture_case_sd: float = 3.0  # spread of that amplitude between patients of one grade, HU
    texture_mm: float = 5.0  # correlation length (FWHM) of the texture
    core_hu: float = -30.0  # necrotic core minus its rim, HU
    residual_hu: float = 25.0  # liver detail kept under a lesion; vessels that stand out more are removed, HU
    # PET
    fdg: TracerParams = TracerParams(
        organ_suv=(("body", 1.2), ("lung", 0.5), ("liver", 2.2), ("spleen", 1.8)),
        lesion_ratio=(1.0, 1.5, 2.2),
    )
    act: TracerParams = TracerParams(
        organ_suv=(("body", 1.2), ("lung", 0.5), ("liver", 3.5), ("spleen", 6.0)),
        lesion_ratio=(2.2, 1.6, 1.0),
    )
    psf_fwhm_mm: float = 6.0  # resolution of the final PET image
    filter_fwhm_mm: float = 4.0  # part of it that is the reconstruction filter, applied after the noise
    counts_per_suv_ml: float = 400.0  # Poisson counts per mL of tissue at SUV 1
    pet_spacing_mm: tuple[float, float] = (5.0, 5.0)  # in-plane PET voxel; slices stay those of the CT

    def tracer(self, name: str) -> TracerParams:
        """Return the parameters of tracer "fdg" or "act"."""
        if name not in ("fdg", "act"):
            raise ValueError(f'tracer must be "fdg" or "act", got {name!r}')
        return self.fdg if name == "fdg" else self.act


DEFAULT_PARAMS = LesionParams()


@dataclass(frozen=True)
class Lesion:
    """One ellipsoid: centre (index * spacing, mm), half-axes (mm), rotation rows, core size (0 = none)."""

    center_mm: Triple
    radii_mm: Triple
    axes: tuple[Triple, Triple, Triple]
    core: float = 0.0

    def box(self, shape: Sequence[int], spacing_mm: Triple, margin_mm: float) -> tuple[slice, ...]:
        """Index slices that hold the lesion and `margin_mm` around it, clipped to the volume."""
        reach = max(self.radii_mm) + margin_mm
        return tuple(
            slice(max(int(np.floor((c - reach) / s)), 0), min(int(np.ceil((c + reach) / s)) + 1, n))
            for c, s, n in zip(self.center_mm, spacing_mm, shape, strict=True)
        )

    def membership(
        self, box: tuple[slice, ...], spacing_mm: Triple, edge_mm: float, scale: float = 1.0
    ) -> NDArray[np.float32]:
        """Share of the lesion, scaled about its centre, in each voxel of `box`; 0.5 on the surface.

        The edge is never narrower than a voxel.
        """
        offsets = [
            np.arange(b.start, b.stop) * s - c
            for b, s, c in zip(box, spacing_mm, self.center_mm, strict=True)
        ]
        x, y, z = np.meshgrid(*offsets, indexing="ij", sparse=True)
        radii = np.asarray(self.radii_mm) * scale
        squared = sum(
            ((a[0] * x + a[1] * y + a[2] * z) / r) ** 2 for a, r in zip(self.axes, radii, strict=True)
        )
        distance = (np.sqrt(squared) - 1.0) * radii.mean()
        return np.clip(0.5 - distance / max(edge_mm, *spacing_mm), 0.0, 1.0).astype(np.float32)


def draw_lesions(
    rng: np.random.Generator,
    liver_mask: NDArray,
    spacing_mm: Triple,
    grade: int,
    params: LesionParams = DEFAULT_PARAMS,
) -> list[Lesion]:
    """Draw 1-4 separate ellipsoids that lie inside the liver.

    Raises ValueError when the liver is empty or too thin for the smallest lesion.
    """
    _check_grade(grade)
    liver = np.asarray(liver_mask) > 0
    if not liver.any():
        raise ValueError("liver_mask must hold at least one voxel, got an empty mask")
    # Room: how far each voxel lies from all that a lesion may not touch; shrinks with every lesion placed.
    box = ndimage.find_objects(liver.astype(np.uint8))[0]
    room = ndimage.distance_transform_edt(np.pad(liver[box], 1), sampling=spacing_mm)[1:-1, 1:-1, 1:-1]
    origin = np.array([b.start for b in box])
    smallest, largest = params.radius_mm
    if room.max() < smallest:
        raise ValueError(
            f"the liver must hold a sphere of radius_mm[0]={smallest} mm, its largest has {room.max():.1f} mm"
        )
    wanted = 1 + rng.choice(len(params.count_probability), p=params.count_probability)
    radii = np.exp(rng.uniform(np.log(smallest), np.log(largest), size=wanted))
    lesions: list[Lesion] = []
    for radius in np.sort(radii)[::-1]:
        if room.max() < smallest:
            break
        radius = min(float(radius), float(room.max()))
        candidates = np.argwhere(room >= radius)
        index = candidates[rng.integers(len(candidates))]
        center = (index + origin) * np.asarray(spacing_mm)
        lesions.append(_ellipsoid(rng, center, radius, grade, params))
        grid = np.meshgrid(*[np.arange(n) for n in room.shape], indexing="ij", sparse=True)
        away = np.sqrt(sum(((g - i) * s) ** 2 for g, i, s in zip(grid, index, spacing_mm, strict=True)))
        room = np.minimum(room, away - radius - params.gap_mm)
    return lesions


def mass_mask(lesions: Sequence[Lesion], liver_mask: NDArray, spacing_mm: Triple) -> NDArray[np.uint8]:
    """Binary mask (X, Y, Z) of all lesions; one below the voxel size keeps its centre voxel."""
    mass = np.zeros(liver_mask.shape, dtype=np.uint8)
    for lesion in lesions:
        box = lesion.box(mass.shape, spacing_mm, 0.0)
        mass[box] |= lesion.membership(box, spacing_mm, edge_mm=1.0) >= 0.5
        mass[tuple(np.round(np.divide(lesion.center_mm, spacing_mm)).astype(int))] = 1
    return mass * (np.asarray(liver_mask) > 0)


def insert_ct(
    ct_hu: NDArray,
    liver_mask: NDArray,
    lesions: Sequence[Lesion],
    spacing_mm: Triple,
    grade: int,
    rng: np.random.Generator,
    params: LesionParams = DEFAULT_PARAMS,
) -> NDArray[np.float32]:
    """Return a copy of the CT (X, Y, Z) in HU with the lesions blended into the liver.

    Contrast and texture are drawn by grade; the noise of the CT stays, vessels under a lesion are removed.
    """
    _check_grade(grade)
    out = np.array(ct_hu, dtype=np.float32)
    liver = np.asarray(liver_mask) > 0
    liver_hu = float(np.median(out[liver]))
    case_contrast = rng.normal(params.contrast_hu[grade], params.contrast_case_sd)
    amplitude = max(rng.normal(params.texture_hu[grade], params.texture_case_sd), 0.0)
    sigma = [params.texture_mm * FWHM_TO_SIGMA / s for s in spacing_mm]
    for lesion in lesions:
        box = lesion.box(out.shape, spacing_mm, params.edge_mm)
        share = lesion.membership(box, spacing_mm, params.edge_mm) * liver[box]
        texture = ndimage.gaussian_filter(rng.standard_normal(share.shape), sigma)
        texture *= amplitude / max(float(texture.std()), 1e-6)
        tissue = liver_hu + np.clip(out[box] - liver_hu, -params.residual_hu, params.residual_hu)
        tissue += case_contrast + rng.normal(0.0, params.contrast_lesion_sd) + texture
        if lesion.core > 0:
            tissue += params.core_hu * lesion.membership(box, spacing_mm, params.edge_mm, lesion.core)
        out[box] += share * (tissue - out[box])
    return out


def uptake(
    organs: Mapping[str, NDArray],
    lesions: Sequence[Lesion],
    spacing_mm: Triple,
    grade: int,
    tracer: str,
    rng: np.random.Generator,
    params: LesionParams = DEFAULT_PARAMS,
) -> NDArray[np.float32]:
    """Ideal tracer uptake (X, Y, Z) in SUV on the CT grid, before blur and noise.

    `organs` maps names of `TracerParams.organ_suv` to masks; "body" and "liver" are required.
    """
    _check_grade(grade)
    missing = [name for name in ("body", "liver") if name not in organs]
    if missing:
        raise ValueError(f"organs must hold body and liver masks, missing {missing}, got {sorted(organs)}")
    model = params.tracer(tracer)
    level = {name: suv * rng.lognormal(0.0, model.organ_cv) for name, suv in model.organ_suv}
    suv = np.zeros(organs["liver"].shape, dtype=np.float32)
    for name, value in level.items():
        if name in organs:
            suv[np.asarray(organs[name]) > 0] = value
    liver = np.asarray(organs["liver"]) > 0
    case_ratio = rng.normal(model.lesion_ratio[grade], model.ratio_case_sd)
    for lesion in lesions:
        box = lesion.box(suv.shape, spacing_mm, params.edge_mm)
        share = lesion.membership(box, spacing_mm, params.edge_mm) * liver[box]
        ratio = max(rng.normal(case_ratio, model.ratio_lesion_sd), model.ratio_min)
        hot = np.full(share.shape, ratio * level["liver"], dtype=np.float32)
        if lesion.core > 0:
            hot *= 1.0 - (1.0 - model.core_ratio) * lesion.membership(
                box, spacing_mm, params.edge_mm, lesion.core
            )
        suv[box] += share * (hot - suv[box])
    return suv


def resample_to_pet_grid(
    volume: NDArray, affine: NDArray, pet_spacing_mm: tuple[float, float]
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Linearly resample (X, Y, Z) to in-plane voxels of `pet_spacing_mm` over the same field of view.

    Returns the volume and its affine; both grids share their outer corner.
    """
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    factor = np.array([pet_spacing_mm[0] / spacing[0], pet_spacing_mm[1] / spacing[1], 1.0])
    offset = (factor - 1.0) / 2.0  # index of the first PET voxel centre on the CT grid
    shape = tuple(int(max(round(n / f), 1)) for n, f in zip(volume.shape, factor, strict=True))
    out = ndimage.affine_transform(
        np.asarray(volume, dtype=np.float32),
        factor,
        offset=offset,
        output_shape=shape,
        order=1,
        mode="nearest",
    )
    pet_affine = np.array(affine, dtype=np.float64)
    pet_affine[:3, 3] += affine[:3, :3] @ offset
    pet_affine[:3, :3] = affine[:3, :3] * factor
    return out, pet_affine


def acquire_pet(
    suv: NDArray, affine: NDArray, rng: np.random.Generator, params: LesionParams = DEFAULT_PARAMS
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Turn ideal uptake on the CT grid into a PET image: detector blur, PET grid, Poisson noise, filter.

    Both blurs are Gaussian and add up to `psf_fwhm_mm`. Returns SUV (X', Y', Z) and the PET grid's affine.
    """
    if params.filter_fwhm_mm > params.psf_fwhm_mm:
        raise ValueError(
            f"filter_fwhm_mm must not exceed psf_fwhm_mm, got {params.filter_fwhm_mm} > {params.psf_fwhm_mm}"
        )
    detector = np.sqrt(params.psf_fwhm_mm**2 - params.filter_fwhm_mm**2) * FWHM_TO_SIGMA
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    blurred = ndimage.gaussian_filter(np.asarray(suv, dtype=np.float32), detector / spacing, mode="nearest")
    pet, pet_affine = resample_to_pet_grid(blurred, affine, params.pet_spacing_mm)
    pet_spacing = np.linalg.norm(pet_affine[:3, :3], axis=0)
    counts = params.counts_per_suv_ml * float(np.prod(pet_spacing)) / 1000.0
    noisy = rng.poisson(np.clip(pet, 0.0, None) * counts) / counts
    filtered = ndimage.gaussian_filter(
        noisy, params.filter_fwhm_mm * FWHM_TO_SIGMA / pet_spacing, mode="nearest"
    )
    return filtered.astype(np.float32), pet_affine


def _ellipsoid(
    rng: np.random.Generator, center: NDArray, radius: float, grade: int, params: LesionParams
) -> Lesion:
    rotation, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    ratios = rng.uniform(*params.axis_ratio, size=2)
    has_core = rng.random() < params.core_probability[grade]
    core = float(rng.uniform(*params.core_size))
    return Lesion(
        center_mm=(float(center[0]), float(center[1]), float(center[2])),
        radii_mm=(radius, float(radius * ratios[0]), float(radius * ratios[1])),
        axes=tuple(tuple(float(v) for v in row) for row in rotation),  # type: ignore[arg-type]
        core=core if has_core and radius >= params.core_radius_mm else 0.0,
    )


def _check_grade(grade: int) -> None:
    if grade not in (0, 1, 2):
        raise ValueError(f"grade must be 0 (well), 1 (moderate) or 2 (poor), got {grade!r}")
