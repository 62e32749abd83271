"""Dose levels of a CT as MONAI transforms; the physics is in ``dose_simulation.py``."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.data.utils import affine_to_spacing
from monai.transforms import MapTransform, RandomizableTransform
from torch import Tensor

from react_kd.dose_simulation import PHOTON_LEVELS, simulate_dose_levels, simulate_low_dose
from react_kd.projector import FilterName
from react_kd.scanner import NoiseModel, stable_seed

__all__ = [
    "PHOTON_LEVELS",
    "LowDoseLevelsd",
    "NoiseModel",
    "RandPickDosed",
    "simulate_dose_levels",
    "simulate_low_dose",
]


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
