"""Low-dose CT from a full-dose one: photon noise on line integrals, then filtered back-projection.

The dose levels and the two noise models follow REACT-KD (arXiv 2508.02104) and its public code. One photon
count means a noise tens of times apart in the two models, so results must carry the model's name.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from copy import deepcopy
from typing import Any, TypeVar, get_args

import numpy as np
import torch
import torch.nn.functional as F
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.data.utils import affine_to_spacing
from monai.transforms import MapTransform, RandomizableTransform
from torch import Tensor

from react_kd.projector import FilterName, parallel_beam
from react_kd.scanner import Exposure, NoiseModel, Scanner, stable_seed

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
    and on plane k of the input alone. A volume cropped inside the body has shorter rays, hence less noise.

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
    hu = torch.as_tensor(volume_hu).detach().to("cpu", torch.float32)
    hu = hu.as_tensor() if isinstance(hu, MetaTensor) else hu
    _check(hu, spacing_mm, levels, model, electronic_sigma)
    exposures = [Exposure(p, seed) for p, seed in zip(levels, seeds, strict=True) if p is not None]
    noisy = iter(_scan(hu, spacing_mm, exposures, model, n_angles, filter_name, electronic_sigma))
    volumes = [hu.clone() if photons is None else next(noisy) for photons in levels]
    if isinstance(volume_hu, np.ndarray):
        return [volume.numpy() for volume in volumes]
    return [volume.to(volume_hu.device) for volume in volumes]


class LowDoseLevelsd(MapTransform):
    """The CT at every dose level, stacked as channels: (1, X, Y, Z) HU -> (L, X, Y, Z) HU under ``output``.

    Needs a MetaTensor with axial planes along the last axis; the voxel size is read from its affine, and its
    meta data are copied. Noise is seeded by (``seed``, the case's ``id_key``, level), so the result does not
    depend on the order of the cases or of the levels and can be kept by CacheDataset or PersistentDataset.
    Place it before the intensity transforms, and ``RandPickDosed`` after the cached part.

    Args:
        keys: the one key of the CT in HU.
        output: key of the stack.
        levels: photons per ray, None for the full dose.
        model, n_angles, filter_name, electronic_sigma: as in :func:`simulate_low_dose`.
        seed: seed of the cohort.
        id_key: key of the case identifier.
        allow_missing_keys: leave a case without CT as it is.

    Raises:
        ValueError: for several keys or no level; when called, naming key and case, for an image that is not a
            (1, X, Y, Z) MetaTensor of finite values.
        KeyError: when called on a case without identifier.
    """

    def __init__(
        self,
        keys: KeysCollection = "image",
        output: str = "dose",
        levels: Sequence[float | None] = (None, 5e4, 1e4, 1e3),
        model: NoiseModel = "beer_lambert",
        n_angles: int | None = None,
        filter_name: FilterName | None = None,
        electronic_sigma: float = 0.0,
        seed: int = 0,
        id_key: str = "scan_id",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if len(self.keys) != 1 or not levels:
            raise ValueError(f"one key and at least one level are required, got {keys=}, {levels=}")
        self.output, self.seed, self.id_key = output, seed, id_key
        self.levels = tuple(None if photons is None else float(photons) for photons in levels)
        self.model, self.n_angles, self.filter_name = model, n_angles, filter_name
        self.electronic_sigma = electronic_sigma

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        sample = dict(data)
        for key in self.key_iterator(sample):
            image = sample[key]
            if self.id_key not in sample:
                raise KeyError(
                    f"{self.id_key!r} is required to seed the noise, got keys {sorted(map(str, sample))}"
                )
            where = f"{key!r} of {self.id_key} {sample[self.id_key]!r}"
            if not isinstance(image, MetaTensor) or image.ndim != 4 or len(image) != 1:
                found = f"{type(image).__name__} {tuple(getattr(image, 'shape', ()))}"
                raise ValueError(f"{where} must be a MetaTensor (1, X, Y, Z), got {found}")
            try:
                doses = self._simulate(image, sample[self.id_key])
            except ValueError as error:
                raise ValueError(f"low-dose simulation of {where}: {error}") from error
            sample[self.output] = MetaTensor(
                torch.stack(doses),
                meta=deepcopy(image.meta),
                applied_operations=deepcopy(image.applied_operations),
            )
        return sample

    def _simulate(self, image: MetaTensor, identifier: Hashable) -> list[Tensor]:
        return simulate_dose_levels(
            image.as_tensor()[0],
            affine_to_spacing(image.affine, r=3).tolist(),
            self.levels,
            [stable_seed(self.seed, identifier, photons) for photons in self.levels],
            model=self.model,
            n_angles=self.n_angles,
            filter_name=self.filter_name,
            electronic_sigma=self.electronic_sigma,
        )


class RandPickDosed(RandomizableTransform, MapTransform):
    """One dose level per call, drawn uniformly, the same for all keys: (L, X, Y, Z) -> (1, X, Y, Z).

    Raises:
        ValueError: when called, if the stacks differ in their number of levels.
    """

    def __init__(self, keys: KeysCollection = "dose", allow_missing_keys: bool = False) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob=1.0)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        sample = dict(data)
        counts = {key: len(sample[key]) for key in self.key_iterator(sample)}
        if len(set(counts.values())) > 1:
            raise ValueError(f"all stacks must have the same number of levels, got {counts}")
        if not counts:
            return sample
        level = int(self.R.randint(min(counts.values())))
        for key in counts:
            sample[key] = sample[key][level : level + 1]
        return sample


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
    volumes = [_resample(torch.cat(planes), shape).permute(1, 2, 0) for planes in zip(*blocks, strict=True)]
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
        raise ValueError(
            f"the volume must be finite, got {int((~torch.isfinite(hu)).sum())} NaN or infinite voxels"
        )
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
