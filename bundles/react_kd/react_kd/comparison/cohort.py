"""Cohorts of the comparison as tensors: preprocessed once, kept in the cache folder, read by every run."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from medbundles.atomic import replacing
from medbundles.samples import cache_dir
from torch import Tensor

from react_kd import phantom
from react_kd.comparison.plan import DOSES, TEACHER_DOSES, TEST_SEED, Budget
from react_kd.data import read_datalist
from react_kd.folds import fold_cases
from react_kd.transforms import preprocessing


@dataclass
class Cohort:
    """N cases as tensors: image (N, 1, X, Y, Z), pet (N, 2, ...), dose (N, L, ...), regions (N, 1, ...)."""

    image: Tensor
    pet: Tensor
    dose: Tensor
    regions: Tensor
    pet_available: Tensor  # (N, 2) bool
    label: Tensor  # (N,) int64, -1 = ungraded
    patients: list[str]

    def __len__(self) -> int:
        return len(self.label)

    def take(self, index: Tensor) -> Cohort:
        """The cases at `index`."""
        parts: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        chosen = index.tolist()
        taken: dict[str, Any] = {
            name: [value[i] for i in chosen] if isinstance(value, list) else value[index]
            for name, value in parts.items()
        }
        return Cohort(**taken)


def training_cohort(seed: int, budget: Budget) -> Cohort:
    """Graded and ungraded training cases of one seed."""
    sizes = {
        "training": budget.graded, "training_ungraded": budget.ungraded_petct, "validation": 0, "test": 0,
        "training_ungraded_ct": budget.ungraded_ct,
    }  # fmt: skip
    return _tensors(seed, sizes, "training", budget, TEACHER_DOSES)


def test_cohort(budget: Budget) -> Cohort:
    """The independent test cases, with the CT at every dose of the sweep."""
    sizes = {
        "training": 0,
        "training_ungraded": 0,
        "training_ungraded_ct": 0,
        "validation": 0,
        "test": budget.test,
    }
    return _tensors(TEST_SEED, sizes, "test", budget, DOSES)


def split(cohort: Cohort, seed: int, fold: int, label_noise: float, ungraded: bool) -> tuple[Cohort, Cohort]:
    """Training and validation cases of one fold, patients kept together; wrong grades only in training."""
    graded = [i for i in range(len(cohort)) if cohort.label[i] >= 0]
    cases = [
        {"i": i, "patient_id": cohort.patients[i], "scan_id": str(i), "label": int(cohort.label[i])}
        for i in graded
    ]
    train, validate = ([case["i"] for case in part] for part in fold_cases(cases, fold, 3, seed))
    if ungraded:
        held_out = {cohort.patients[i] for i in validate}
        train += [i for i in range(len(cohort)) if cohort.label[i] < 0 and cohort.patients[i] not in held_out]
    training = cohort.take(torch.tensor(train))
    training.label = flip_labels(training.label, label_noise, seed * 100 + fold)
    return training, cohort.take(torch.tensor(validate))


def flip_labels(label: Tensor, share: float, seed: int) -> Tensor:
    """Replace exactly round(share * graded) grades by another grade, each with equal chance."""
    generator = torch.Generator().manual_seed(seed)
    graded = torch.nonzero(label >= 0).flatten()
    chosen = graded[torch.randperm(len(graded), generator=generator)[: round(share * len(graded))]]
    out = label.clone()
    out[chosen] = (label[chosen] + torch.randint(1, 3, chosen.shape, generator=generator)) % 3
    return out


def _tensors(
    seed: int, sizes: dict[str, int], name: str, budget: Budget, doses: tuple[float | None, ...]
) -> Cohort:
    folder = phantom.simulated_cohort(seed=seed, sizes=sizes)
    chain = {"size": budget.size, "roi": "liver_mask", "dose_levels": list(doses)}
    digest = hashlib.sha256(json.dumps([Path(folder).name, chain]).encode()).hexdigest()[:12]
    path = cache_dir() / "react_kd" / f"comparison_{digest}.pt"
    if not path.is_file():
        phantom.ensure(folder)
        cases = read_datalist(Path(folder) / "datalist.json").splits[name]
        _preprocess(cases, chain, path)
    return Cohort(**torch.load(path, weights_only=True))


def _preprocess(cases: list[dict[str, Any]], chain: dict[str, Any], path: Path) -> None:
    from tqdm.contrib.concurrent import thread_map

    transform = preprocessing(**chain)
    samples = thread_map(transform, cases, max_workers=2, desc="preprocessing", ncols=110)
    keys = ("image", "pet", "dose", "regions", "pet_available")
    parts: dict[str, Any] = {key: torch.stack([torch.as_tensor(s[key]) for s in samples]) for key in keys}
    parts["label"] = torch.tensor([int(s["label"]) for s in samples])
    parts["patients"] = [case["patient_id"] for case in cases]
    with replacing(path) as temporary:
        torch.save(parts, temporary)
