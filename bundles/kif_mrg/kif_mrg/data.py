"""Records to batches: image, diagnoses, retrieved reports and the words of the report."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from medbundles.resampling import other_group
from monai.data import CacheDataset, Dataset
from monai.transforms import Compose, Randomizable, RandomizableTrait, Transform
from monai.utils import convert_to_tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler

from kif_mrg.memory import ReportMemory
from kif_mrg.records import Record
from kif_mrg.text import ReportTokenizer

__all__ = ["ReportDataset", "collate", "eval_loader", "train_loader"]

Item = dict[str, Any]


class ReportDataset(torch.utils.data.Dataset):
    """Items of image, labels (C,), memory (K, Dm), tokens (a list that ends in [SEP]), report, id, study_id.

    `retrieved` holds the study ids of the memory rows; both are absent without a memory. No file is opened
    before `fill_cache` or the first item, so images and memory may be made after the dataset. Random
    transforms are seeded from torch's generator.

    Args:
        records: of one split.
        tokenizer: makes the tokens.
        transform: from `image_path` (a list of files) to `image`.
        memory: the report memory, or None for a network without one.
        k: retrieved reports per image.
        max_words: longer reports are cut in `tokens`, never in `report`.
        cache: "memory" keeps every image as it is before the first random transform, "none" reads it each
            time.

    Raises:
        ValueError: no record, or another `cache`.
    """

    def __init__(
        self,
        records: Sequence[Record],
        tokenizer: ReportTokenizer,
        transform: Compose,
        memory: ReportMemory | None = None,
        k: int = 5,
        max_words: int | None = 100,
        cache: str = "memory",
    ) -> None:
        if not records:
            raise ValueError("a dataset needs at least one record, got none")
        if cache not in ("memory", "none"):
            raise ValueError(f'cache must be "memory" or "none", got {cache!r}')
        self.records, self.tokenizer, self.memory, self.k = list(records), tokenizer, memory, k
        self.max_words = max_words
        steps = transform.flatten()
        random = steps.get_index_of_first(_may_be_random)
        self.fixed, self.random = Compose(steps.transforms[:random]), None
        if random is not None:
            self.random = Compose(steps.transforms[random:])
        rows = [{"image_path": record["image_path"]} for record in self.records]
        if cache == "memory":
            self.images: Dataset = CacheDataset(rows, self.fixed, runtime_cache=True, progress=False)
        else:
            self.images = Dataset(rows, self.fixed)
        self.image_of = list(range(len(rows)))
        self._seeded = self.random is not None and any(
            isinstance(step, Randomizable) for step in self.random.transforms
        )
        self._tokens: dict[int, np.ndarray] = {}
        self._retrieved = memory is None

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Item:
        self.retrieve()
        record = self.records[index]
        item: Item = {
            "image": self.image(self.image_of[index]),
            "labels": torch.tensor(record["labels"], dtype=torch.int64),
            "tokens": self.tokens(index),
            **{key: record[key] for key in ("report", "id", "study_id")},
        }
        if self.memory is not None:
            rows = record["retrieved"]
            item |= {
                "memory": self.memory.gather(rows),
                "retrieved": [self.memory.study_ids[row] for row in rows],
            }
        return item

    def image(self, index: int) -> torch.Tensor:
        """The image (3, H, W), or (V, 3, H, W) of V views, of a record after all transforms."""
        data = self.images[index]
        if self.random is not None:
            if self._seeded:  # MONAI's own; they do not follow torch's generator, by which runs are resumed
                self.random.set_random_state(seed=int(torch.randint(2**31, ())))
            data = self.random(copy.deepcopy(data))  # the cache must stay as it is
        return convert_to_tensor(data["image"])

    def tokens(self, index: int) -> list[int]:
        """Ids of the first `max_words` words of a report, and [SEP]."""
        if index not in self._tokens:
            words = self.tokenizer.encode(self.records[index]["report"], self.max_words)
            self._tokens[index] = np.array([*words, self.tokenizer.sep_id], dtype=np.int32)
        return self._tokens[index].tolist()

    def retrieve(self) -> None:
        """Attach the retrieved reports to the records, once; errors as in ReportMemory.attach."""
        if not self._retrieved and self.memory is not None:
            self.memory.attach(self.records, self.k)
        self._retrieved = True

    def fill_cache(self, desc: str = "images") -> None:
        """Retrieve the reports, and read every image once if they are cached, with a progress bar.

        Kept apart from the construction, so that looking at a config reads no image. Errors as in read_image
        and ReportMemory.attach.
        """
        self.retrieve()
        if isinstance(self.images, CacheDataset):
            from tqdm.contrib.concurrent import thread_map

            thread_map(self.images.__getitem__, range(len(self)), desc=desc, ncols=110)

    def with_shuffled_images(self, seed: int = 0) -> ReportDataset:
        """The same records and retrieved reports, every one with the image of another study; always the same.

        Raises ValueError when more than half of the records are of one study.
        """
        shuffled = copy.copy(self)
        shuffled.image_of = other_group([record["study_id"] for record in self.records], seed, "in study")
        return shuffled


def _may_be_random(step: object) -> bool:
    """What CacheDataset does not cache either: random transforms, and functions of which nothing is known."""
    return isinstance(step, RandomizableTrait) or not isinstance(step, Transform)


def collate(pad_id: int) -> Callable[[Sequence[Item]], Item]:
    """Function that makes a batch: tokens (B, T) padded with `pad_id`, tensors stacked, the rest as lists."""
    return partial(_collate, pad_id=pad_id)


def _collate(items: Sequence[Item], pad_id: int) -> Item:
    batch: Item = {}
    for key, first in items[0].items():
        values = [item[key] for item in items]
        if key == "tokens":
            batch[key] = pad_sequence([torch.tensor(value) for value in values], True, pad_id)
        elif isinstance(first, torch.Tensor):
            batch[key] = torch.stack(values)
        else:
            batch[key] = values
    return batch


def train_loader(dataset: ReportDataset, batch_size: int, seed: int = 0, num_workers: int = 0) -> DataLoader:
    """Loader in a new order each epoch, a function of (seed, epoch); under torchrun each rank gets its share.

    `loader.sampler.set_epoch(epoch)` picks the epoch (MONAI engines do). An incomplete last batch is left
    out, unless it is the only one.
    """
    sampler: DistributedSampler = DistributedSampler(
        dataset, num_replicas=idist.get_world_size(), rank=idist.get_rank(), seed=seed
    )
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        drop_last=len(sampler) >= batch_size,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        collate_fn=collate(dataset.tokenizer.pad_id),
    )


def eval_loader(dataset: ReportDataset, batch_size: int, num_workers: int = 0) -> DataLoader:
    """Loader in the order of the records, the last batch as long as it comes; every process reads all."""
    return DataLoader(
        dataset, batch_size=batch_size, num_workers=num_workers, collate_fn=collate(dataset.tokenizer.pad_id)
    )
