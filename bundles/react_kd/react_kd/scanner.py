"""A simulated CT scanner: the two models of photon noise, slice by slice.

Both follow REACT-KD (arXiv 2508.02104): the physical model, and the one of the authors' public code.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from react_kd.projector import FilterName, ParallelBeam

NoiseModel = Literal["beer_lambert", "linear"]

WATER_ATTENUATION = 0.0192  # 1/mm, at about 70 keV
LINEAR_FIELD = 256.0  # width of a slice in the unit of length of the authors' line integrals


def stable_seed(*parts: Hashable) -> int:
    """A 63-bit seed from the text of the parts: the same in every process and on every machine."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


class Exposure(NamedTuple):
    """One scan: photons per ray before the patient, and the seed of its noise."""

    photons: float
    seed: int


@dataclass(frozen=True)
class Scanner:
    """One geometry; its methods scan planes (B, X, Y) in HU, numbered from ``first`` on, at every exposure.

    All exposures share one projection. Plane k of an exposure depends on its seed, k and plane k alone.
    """

    beam: ParallelBeam
    filter_name: FilterName
    pixel_mm: float
    electronic_sigma: float

    def beer_lambert(self, planes: Tensor, first: int, exposures: Sequence[Exposure]) -> list[Tensor]:
        """Poisson noise on the transmitted photons I0 * exp(-line integral), read out with normal noise."""
        water = WATER_ATTENUATION * self.pixel_mm  # per pixel
        transmitted = torch.exp(-self._project((planes / 1000 + 1).clamp(min=0) * water))
        scans = []
        for photons, seed in exposures:
            counts = _poisson(transmitted * photons, first, seed, self.electronic_sigma)
            lines = -torch.log(counts.clamp(min=1) / photons)
            scans.append((self._reconstruct(lines, planes) / water - 1) * 1000)
        return scans

    def linear(self, planes: Tensor, first: int, exposures: Sequence[Exposure]) -> list[Tensor]:
        """Poisson noise on the line integrals of the slice scaled to [0, 1], without attenuation law."""
        lowest = planes.amin((1, 2), keepdim=True)
        extent = planes.amax((1, 2), keepdim=True) - lowest
        scaled = (planes - lowest) / extent.clamp(min=torch.finfo(planes.dtype).tiny)
        pixel = LINEAR_FIELD / max(planes.shape[1:])
        lines = self._project(scaled) * pixel
        scans = []
        for photons, seed in exposures:
            noisy = _poisson(lines * photons, first, seed) / (photons * pixel)
            scans.append(self._reconstruct(noisy, planes).clamp(0, 1) * extent + lowest)
        return scans

    def _project(self, planes: Tensor) -> Tensor:
        rows, columns = planes.shape[1:]
        return self.beam.project(F.pad(planes, (0, self.beam.size - columns, 0, self.beam.size - rows)))

    def _reconstruct(self, lines: Tensor, like: Tensor) -> Tensor:
        rows, columns = like.shape[1:]
        return self.beam.reconstruct(lines, self.filter_name)[:, :rows, :columns]


def _poisson(expected: Tensor, first: int, seed: int, normal_sigma: float = 0.0) -> Tensor:
    """Counts of the same shape (B, angles, detectors), plus normal noise of ``normal_sigma`` counts."""
    planes = []
    for number, plane in enumerate(expected, start=first):
        # Poisson sampling uses up a varying number of random words: a generator per plane keeps them apart.
        generator = torch.Generator().manual_seed(stable_seed(seed, number))
        counts = torch.poisson(plane, generator=generator)
        if normal_sigma:
            counts += normal_sigma * torch.randn(plane.shape, generator=generator)
        planes.append(counts)
    return torch.stack(planes)
