"""Low-dose CT from a full-dose one: photon noise on line integrals, then filtered back-projection.

The dose levels and the two noise models follow REACT-KD (arXiv 2508.02104) and its public code. One photon
count means a noise tens of times apart in the two models, so results must carry the model's name.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from react_kd.projector import FilterName, parallel_beam
from react_kd.scanner import Exposure, NoiseModel, Scanner

Volume = TypeVar("Volume", np.ndarray, Tensor)

PHOTON_LEVELS = (1e6, 5e4, 1e4, 1e3, 5e2)
DEFAULT_FILTER: dict[NoiseModel, FilterName] = {"beer_lambert": "hann", "linear": "ram-lak"}
PADDING_HU = -1024.0  # what lies below was written by the scanner outside its field of view

_SIDE_STEP = 16  # slices are padded to a multiple of it, so that few geometries are built
_MAX_DEFAULT_ANGLES = 384  # bounds the memory of the system matrix
_SLICES_AT_ONCE = 32  # bounds the memory of the sinograms


def simulate_low_dose(
    volume_hu: Volume,
    spacing_mm: Sequence[float],
    photons: float | None,
    *,
    model: NoiseModel = "beer_lambert",
    n_angles: int | None = None,
    filter_name: FilterName | None = None,
    electronic_sigma: float = 0.0,
    seed: int = 0,
) -> Volume:
    """CT as a scan with ``photons`` per ray would have shown it: (X, Y, Z) HU -> (X, Y, Z) HU, float32.

    Every plane of the last axis is scanned by itself, by parallel rays over 180 degrees:

    - ``beer_lambert``: p is the integral of 0.0192/mm * (1 + HU/1000) along the ray, I ~ Poisson(photons *
      exp(-p)) + Normal(0, electronic_sigma), and -log(max(I, 1) / photons) is reconstructed;
    - ``linear``, the formula of the authors' code: the slice is scaled to [0, 1] by its own extremes, s are
      its line integrals over a field 256 wide, and Poisson(photons * s) / photons is reconstructed and
      clipped to [0, 1]. Without the attenuation law, the noise depends on the brightest voxel of the slice.

    Non-square slices are padded with air; unequal in-plane spacings are resampled to the finer one and back.
    The whole field is projected, corners included, so nothing is cut to a circle. Voxels below -1024 HU are
    padding of the scanner: they count as air and are given back unchanged. Plane k depends on the seed, on k
    and on plane k of the input alone.

    A ray is one pixel wide, so the same ``photons`` mean more noise on a finer grid and less with more views.
    A volume cropped inside the body has shorter rays, hence less noise. At 1e3 photons and below the
    logarithm of few counts is biased upward, so the middle of an abdomen brightens; rays that count nothing
    are read as one photon, which darkens it again at still lower doses.

    Args:
        volume_hu: CT, axial planes along the last axis.
        spacing_mm: voxel size along the three axes.
        photons: photons per ray before the patient; None is the full dose, a copy of the input.
        model: noise model.
        n_angles: views, a multiple of 4; None takes 1.5 per pixel of the padded side, at most 384.
        filter_name: None takes the model's own, Hann for ``beer_lambert`` and Ram-Lak for ``linear``.
        electronic_sigma: standard deviation of the read-out noise in photons (``beer_lambert`` only).
        seed: the same seed gives the same volume.

    Raises:
        ValueError: for a volume that is not three-dimensional and finite, or an argument out of its range.
    """
    return simulate_dose_levels(
        volume_hu,
        spacing_mm,
        [photons],
        [seed],
        model=model,
        n_angles=n_angles,
        filter_name=filter_name,
        electronic_sigma=electronic_sigma,
    )[0]


def simulate_dose_levels(
    volume_hu: Volume,
    spacing_mm: Sequence[float],
    levels: Sequence[float | None],
    seeds: Sequence[int],
    *,
    model: NoiseModel = "beer_lambert",
    n_angles: int | None = None,
    filter_name: FilterName | None = None,
    electronic_sigma: float = 0.0,
) -> list[Volume]:
    """:func:`simulate_low_dose` at several photon counts, each with its seed, from one projection."""
    hu = torch.as_tensor(volume_hu).as_subclass(Tensor).detach().to("cpu", torch.float32)
    _check(hu, spacing_mm, levels, model, electronic_sigma)
    exposures = [Exposure(p, seed) for p, seed in zip(levels, seeds, strict=True) if p is not None]
    noisy = iter(_scan(hu, spacing_mm, exposures, model, n_angles, filter_name, electronic_sigma))
    volumes = [hu.clone() if photons is None else next(noisy) for photons in levels]
    if isinstance(volume_hu, np.ndarray):
        return [volume.numpy() for volume in volumes]
    return [volume.to(volume_hu.device) for volume in volumes]


def _scan(
    hu: Tensor,
    spacing_mm: Sequence[float],
    exposures: Sequence[Exposure],
    model: NoiseModel,
    n_angles: int | None,
    filter_name: FilterName | None,
    electronic_sigma: float,
) -> list[Tensor]:
    if not exposures:
        return []
    planes, pixel_mm = _isotropic(hu.permute(2, 0, 1).clamp(min=PADDING_HU), spacing_mm)  # (Z, X', Y')
    side = math.ceil(max(planes.shape[1:]) / _SIDE_STEP) * _SIDE_STEP
    beam = parallel_beam(side, min(3 * side // 2, _MAX_DEFAULT_ANGLES) if n_angles is None else n_angles)
    scanner = Scanner(beam, filter_name or DEFAULT_FILTER[model], pixel_mm, electronic_sigma)
    scan = scanner.linear if model == "linear" else scanner.beer_lambert
    blocks = [
        scan(planes[first : first + _SLICES_AT_ONCE], first, exposures)
        for first in range(0, len(planes), _SLICES_AT_ONCE)
    ]
    shape = (hu.shape[0], hu.shape[1])
    volumes = [_resample(torch.cat(scans), shape).permute(1, 2, 0) for scans in zip(*blocks, strict=True)]
    return [torch.where(hu < PADDING_HU, hu, volume).contiguous() for volume in volumes]


def _check(
    hu: Tensor,
    spacing_mm: Sequence[float],
    levels: Sequence[float | None],
    model: str,
    electronic_sigma: float,
) -> None:
    if hu.ndim != 3 or not hu.numel():
        raise ValueError(f"the volume must be (X, Y, Z) and not empty, got shape {tuple(hu.shape)}")
    if not torch.isfinite(hu).all():
        broken = int((~torch.isfinite(hu)).sum())
        raise ValueError(f"the volume must be finite, got {broken} NaN or infinite voxels")
    if len(spacing_mm) != 3 or not all(0 < value < math.inf for value in spacing_mm):
        raise ValueError(f"spacing_mm must be three positive lengths, got {tuple(spacing_mm)}")
    for photons in levels:
        if photons is not None and not 0 < photons < math.inf:
            raise ValueError(f"photons must be positive, or None for the full dose, got {photons}")
    if model not in get_args(NoiseModel):
        raise ValueError(f"model must be one of {get_args(NoiseModel)}, got {model!r}")
    if electronic_sigma < 0 or (electronic_sigma and model == "linear"):
        raise ValueError(
            f"electronic_sigma must be >= 0, and 0 in the linear model, got {electronic_sigma} in {model!r}"
        )


def _isotropic(planes: Tensor, spacing_mm: Sequence[float]) -> tuple[Tensor, float]:
    """Planes (B, X, Y) on square pixels of the finer in-plane spacing, and that spacing in mm."""
    pixel_mm = float(min(spacing_mm[:2]))
    rows, columns = (
        round(n * float(d) / pixel_mm) for n, d in zip(planes.shape[1:], spacing_mm[:2], strict=True)
    )
    return _resample(planes, (rows, columns)), pixel_mm


def _resample(planes: Tensor, shape: tuple[int, int]) -> Tensor:
    if tuple(planes.shape[1:]) == shape:
        return planes
    return F.interpolate(planes[:, None], size=shape, mode="bilinear", align_corners=False)[:, 0]
