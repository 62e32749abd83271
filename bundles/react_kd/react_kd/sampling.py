"""Loaders: batches that mix graded and ungraded cases, the same in every run of one seed."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from typing import Any

import ignite.distributed as idist
import numpy as np
from monai.data import DataLoader
from monai.transforms import Randomizable
from torch.utils.data import Dataset, Subset
from torch.utils.data.distributed import DistributedSampler

from react_kd.cases import UNGRADED, grade_of

logger = logging.getLogger(__name__)

Draw = tuple[int, int]  # (index of the case, seed of its random transforms)


class MixedSampler(DistributedSampler):
    """Draws in which every consecutive `batch_size` hold graded and ungraded cases in one ratio.

    One epoch shows every graded case once, the last batch filled up from one more shuffle; ungraded cases
    take turns over the epochs. Everything is a pure function of (seed, epoch, rank), so a resumed run needs
    no sampler state. MONAI's engines call `set_epoch` by themselves for this base class.
    """

    def __init__(
        self,
        grades: Sequence[int],
        batch_size: int,
        ungraded_ratio: float = 0.5,
        seed: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        rank = idist.get_rank() if rank is None else rank
        world_size = idist.get_world_size() if world_size is None else world_size
        super().__init__(list(grades), num_replicas=world_size, rank=rank, seed=seed)  # type: ignore[arg-type]
        self.graded = [i for i, grade in enumerate(grades) if grade != UNGRADED]
        self.ungraded = [i for i, grade in enumerate(grades) if grade == UNGRADED]
        self.batch_size = batch_size
        self.ungraded_per_batch = self._share(ungraded_ratio)
        self.graded_per_batch = batch_size - self.ungraded_per_batch
        leading, per_batch = (
            (self.graded, self.graded_per_batch) if self.graded else (self.ungraded, batch_size)
        )
        self.steps = math.ceil(len(leading) / (per_batch * world_size))
        self.num_samples = self.steps * batch_size
        self.total_size = self.num_samples * world_size

    def _share(self, ratio: float) -> int:
        if self.batch_size < 2:
            raise ValueError(f"batch_size must be at least 2, got {self.batch_size}")
        if not 0.0 <= ratio <= 1.0:
            raise ValueError(f"ungraded_ratio must be in 0..1, got {ratio}")
        if not self.graded and not self.ungraded:
            raise ValueError("the training set must hold at least one case, got none")
        if not self.graded:
            return self.batch_size
        share = round(ratio * self.batch_size) if self.ungraded else 0
        if share == self.batch_size:
            raise ValueError(
                f"ungraded_ratio={ratio} leaves no place for a graded case in batch_size={self.batch_size}"
            )
        return share

    def __iter__(self) -> Iterator[Draw]:
        batches = self.steps * self.num_replicas
        columns = [
            self._cases(self.graded, 0, batches * self.graded_per_batch, (0, self.epoch)),
            self._cases(
                self.ungraded,
                self.epoch * batches * self.ungraded_per_batch,
                batches * self.ungraded_per_batch,
                (1,),
            ),
        ]
        table = np.concatenate([c.reshape(batches, -1) for c in columns], axis=1)
        seeds = np.random.default_rng([self.seed, 2, self.epoch]).integers(2**31, size=table.shape)
        for row in range(self.rank, batches, self.num_replicas):
            yield from zip(table[row].tolist(), seeds[row].tolist(), strict=True)

    def __len__(self) -> int:
        return self.num_samples

    def _cases(self, members: Sequence[int], start: int, count: int, key: tuple[int, ...]) -> np.ndarray:
        """`count` members from position `start` of an endless row of shuffles."""
        if count == 0:
            return np.empty(0, dtype=int)
        first, last = start // len(members), (start + count - 1) // len(members)
        row = np.concatenate(
            [
                np.random.default_rng([self.seed, *key, block]).permutation(members)
                for block in range(first, last + 1)
            ]
        )
        offset = start - first * len(members)
        return row[offset : offset + count]


class SeededDataset(Dataset):
    """A dataset indexed by draws; the seed of a draw fixes the random transforms in whatever process."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __getitem__(self, draw: Draw) -> Any:
        index, seed = draw
        transform = getattr(self.dataset, "transform", None)
        if isinstance(transform, Randomizable):
            transform.set_random_state(seed=seed)
        return self.dataset[index]

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]


def train_loader(
    dataset: Dataset,
    batch_size: int = 4,
    ungraded_ratio: float = 0.5,
    seed: int = 0,
    num_workers: int = 0,
) -> DataLoader:
    """Loader whose batches hold round(ungraded_ratio * batch_size) ungraded cases; all are `batch_size` long.

    The ratio has no effect on a dataset of only graded or only ungraded cases. Under torchrun each rank gets
    its own batches of `batch_size`; call it after the process group exists. `loader.sampler.set_epoch(epoch)`
    picks the epoch (MONAI engines do). Raises ValueError for batch_size < 2 or a ratio that leaves no place
    for a graded case.
    """
    grades = [grade_of(case) for case in dataset.data]  # type: ignore[attr-defined]
    sampler = MixedSampler(grades, batch_size, ungraded_ratio, seed)
    logger.info(
        "training batches: %d graded of %d cases, %d ungraded of %d cases, %d steps per epoch",
        sampler.graded_per_batch,
        len(sampler.graded),
        sampler.ungraded_per_batch,
        len(sampler.ungraded),
        sampler.steps,
    )
    return DataLoader(
        SeededDataset(dataset),
        batch_size=batch_size,
        sampler=sampler,
        drop_last=True,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
    )


def eval_loader(dataset: Dataset, batch_size: int = 4, num_workers: int = 0) -> DataLoader:
    """Loader in the order of the cases; under torchrun rank r gets cases r, r + world_size, ... once each."""
    rank, world_size = idist.get_rank(), idist.get_world_size()
    if world_size > 1:
        dataset = Subset(dataset, range(rank, len(dataset), world_size))  # type: ignore[arg-type]
    return DataLoader(dataset, batch_size=batch_size, shuffle=False, num_workers=num_workers)
