"""What an evaluation runs over: the graded cases of a split, and what the networks are given of them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from monai.transforms import Compose, Transform

from react_kd.cases import UNGRADED
from react_kd.data import cases, read_datalist
from react_kd.low_dose import NoiseModel


@dataclass(frozen=True)
class EvaluationSplit:
    """The graded cases of one split of a cohort, and how many ungraded ones were left out."""

    cohort: str
    classes: tuple[str, ...]
    split: str
    fold: int
    graded: list[dict[str, Any]]
    ungraded: int


def read_split(datalist: str, split: str, fold: int = 0, folds: int = 3) -> EvaluationSplit:
    """Read one split of a datalist; ValueError when it is missing or holds no graded case."""
    cohort = read_datalist(datalist)
    rows = cases(datalist, split, fold, folds)
    graded = [case for case in rows if case.get("label", UNGRADED) != UNGRADED]
    if not graded:
        raise ValueError(
            f"split {split} of {datalist} must hold a graded case, got {len(rows)} cases without a label"
        )
    return EvaluationSplit(cohort.name, cohort.classes, split, fold, graded, len(rows) - len(graded))


@dataclass(frozen=True)
class Condition:
    """What a network is given: CT at some dose, PET, or both."""

    name: str
    streams: tuple[str, ...]  # of "ct" and "pet"
    photons: float | None = None  # per ray; None is the full dose
    noise_model: str = "none"
    source: tuple[str, int] = ("image", 0)  # key and channel of the CT in a sample


CT, PETCT, PET = Condition("ct", ("ct",)), Condition("petct", ("ct", "pet")), Condition("pet", ("pet",))


class DoseSweep(Transform):
    """Preprocess a case and add, for every noise model, the CT at L doses as `dose_<model>` (L, X, Y, Z).

    `conditions` lists what the networks are to be given: CT alone, CT with PET, PET alone, and CT alone at
    every dose of every noise model.

    Args:
        preprocess: makes the preprocessing from `dose_levels` and `dose_model` (transforms.preprocessing).
        dose_levels: photons per ray; None is the full dose, the key `image`, which is always there.
        noise_models: one name or several; each further one preprocesses every case once more.

    Raises:
        ValueError: an unknown noise model, or a level that is not positive.
    """

    def __init__(
        self,
        preprocess: Callable[..., Compose],
        dose_levels: Sequence[float | None],
        noise_models: str | Sequence[str] = "beer_lambert",
    ) -> None:
        levels = [float(photons) for photons in dose_levels if photons is not None]
        if not all(photons > 0 for photons in levels):
            raise ValueError(
                f"dose_levels must be positive, or null for the full dose, got {list(dose_levels)}"
            )
        models = [noise_models] if isinstance(noise_models, str) else list(noise_models)
        if not models or not set(models) <= set(get_args(NoiseModel)):
            raise ValueError(f"noise_models must be of {get_args(NoiseModel)}, got {noise_models!r}")
        self.chains = {model: preprocess(dose_levels=levels, dose_model=model) for model in models}
        self.conditions = [CT, PETCT, PET] + [
            Condition(f"ct_{photons:g}_{model}", ("ct",), photons, model, (f"dose_{model}", i))
            for model in models
            for i, photons in enumerate(levels)
        ]

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        samples = {model: chain(dict(data)) for model, chain in self.chains.items()}
        doses = {f"dose_{model}": sample.pop("dose") for model, sample in samples.items() if "dose" in sample}
        return next(iter(samples.values())) | doses
