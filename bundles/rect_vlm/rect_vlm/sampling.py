"""Which volumes an epoch sees, and how they become batches."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from monai.data import MetaTensor
from monai.data.utils import collate_meta_tensor_fn
from torch.utils.data import DataLoader, Dataset, Sampler

Item = dict[str, Any]


class ScanSampler(Sampler[int]):
    """One reconstruction of every scan per epoch, drawn at random, scans in a new order each epoch.

    A function of (seed, epoch). Every process gets a share of one length; the first scans are repeated where
    they do not divide evenly.

    Args:
        scans: the scan of each volume.
        seed: of order and draw.
        replicas, rank: processes and which of them this is.
    """

    def __init__(self, scans: Sequence[str], seed: int = 0, replicas: int = 1, rank: int = 0) -> None:
        groups: dict[str, list[int]] = {}
        for index, scan in enumerate(scans):
            groups.setdefault(scan, []).append(index)
        self.groups = list(groups.values())
        self.seed, self.replicas, self.rank, self.epoch = seed, replicas, rank, 0

    def set_epoch(self, epoch: int) -> None:
        """Pick the epoch; MONAI's engines call it."""
        self.epoch = epoch

    def __len__(self) -> int:
        return math.ceil(len(self.groups) / self.replicas)

    def __iter__(self) -> Iterator[int]:
        random = np.random.default_rng([self.seed, self.epoch])
        order = random.permutation(len(self.groups))
        chosen = [self.groups[i][random.integers(len(self.groups[i]))] for i in order]
        shares = np.resize(chosen, len(self) * self.replicas)
        return iter(shares[self.rank :: self.replicas].tolist())


def collate(items: Sequence[Item]) -> Item:
    """Batch of items: tensors stacked, MetaTensors with the meta data of each, everything else as lists."""
    batch: Item = {}
    for key, first in items[0].items():
        values = [item[key] for item in items]
        if isinstance(first, MetaTensor):
            batch[key] = collate_meta_tensor_fn(values)
        else:
            batch[key] = torch.stack(values) if isinstance(first, torch.Tensor) else values
    return batch


def train_loader(
    dataset: Dataset, scans: Sequence[str], batch_size: int, seed: int = 0, num_workers: int = 0
) -> DataLoader:
    """Loader of one reconstruction per scan and epoch; under torchrun each rank gets its share.

    `loader.sampler.set_epoch(epoch)` picks the epoch (MONAI's engines do). An incomplete last batch is left
    out, unless it is the only one.
    """
    sampler = ScanSampler(scans, seed, idist.get_world_size(), idist.get_rank())
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        drop_last=len(sampler) >= batch_size,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        collate_fn=collate,
    )


def eval_loader(dataset: Dataset, batch_size: int = 1, num_workers: int = 0) -> DataLoader:
    """Loader in the order of the records, the last batch as long as it comes; every process reads all."""
    return DataLoader(dataset, batch_size=batch_size, num_workers=num_workers, collate_fn=collate)
