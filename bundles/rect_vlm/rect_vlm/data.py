"""Records to batches: volume, regions, lesion masks, labels and report."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from medbundles.resampling import other_group
from monai.data import CacheDataset, Dataset
from monai.transforms import Compose, RandomizableTrait, Transform
from torch.utils.data import DataLoader

from rect_vlm import sampling
from rect_vlm.case_steps import CaseCompose, FinishCased
from rect_vlm.findings import FINDINGS
from rect_vlm.records import UNKNOWN, Record, volume_of
from rect_vlm.sampling import Item, eval_loader
from rect_vlm.volume_cache import VolumeCache

__all__ = ["CtDataset", "eval_loader", "train_loader"]

CACHES = ("none", "memory", "persistent")


class CtDataset(torch.utils.data.Dataset):
    """Items of image (1, D, H, W), regions (1, D, H, W), masks (5, D, H, W), labels (18,), report, id, scan.

    With the further keys of `transforms.eval_transform`, and `evidence` where a function for it is given.
    Unknown labels are -1, no report is "". No file is opened before `fill_cache` or the first item, so that
    volumes may be made after the dataset. Random transforms are seeded from torch's generator.

    Args:
        records: of one split.
        transform: `train_transform` or `eval_transform`.
        cache: "memory" keeps every volume as it is before the first random step, "persistent" keeps it on
            disk between runs, "none" reads it each time. Only "none" and "memory" keep meta data.
        cache_dir: folder of the persistent cache; None takes the cache of the user.
        evidence: from a finished item to the lines of evidence that the report generator is shown.

    Raises:
        ValueError: no record, or another `cache`.
    """

    def __init__(
        self,
        records: Sequence[Record],
        transform: Compose,
        cache: str = "none",
        cache_dir: str | Path | None = None,
        evidence: Callable[[Item], list[str]] | None = None,
    ) -> None:
        if not records:
            raise ValueError("a dataset needs at least one record, got none")
        if cache not in CACHES:
            raise ValueError(f"cache must be one of {', '.join(CACHES)}, got {cache!r}")
        self.records, self.evidence = list(records), evidence
        steps = transform.flatten().transforms
        cut = next((i for i, step in enumerate(steps) if _stays_out(step)), len(steps))
        fixed, self.rest = CaseCompose(steps[:cut]), CaseCompose(steps[cut:])
        rows = [volume_of(record) for record in self.records]
        self.volumes: Dataset = {
            "none": lambda: Dataset(rows, fixed),
            "memory": lambda: CacheDataset(rows, fixed, runtime_cache=True, progress=False),
            "persistent": lambda: VolumeCache(rows, fixed, cache_dir),
        }[cache]()
        self.volume_of = list(range(len(rows)))

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Item:
        record = self.records[index]
        volume = self.volumes[self.volume_of[index]]
        if any(isinstance(step, RandomizableTrait) for step in self.rest.transforms):
            # MONAI's own generators do not follow torch's, by which runs are resumed.
            self.rest.set_random_state(seed=int(torch.randint(2**31, ())))
        item: Item = dict(self.rest(copy.copy(volume)))
        labels = record["labels"] or [UNKNOWN] * len(FINDINGS)
        item["labels"] = torch.tensor(labels, dtype=torch.float32)
        item |= {"report": record["report"], "id": record["id"], "scan": record["scan"]}
        if self.evidence is not None:
            item["evidence"] = self.evidence(item)
        return item

    def fill_cache(self, workers: int = 2, desc: str = "volumes") -> None:
        """Prepare every volume once by `workers` threads, with a progress bar; nothing without a cache."""
        if type(self.volumes) is not Dataset:
            from tqdm.contrib.concurrent import thread_map

            thread_map(self._prepare, range(len(self)), max_workers=workers, desc=desc, ncols=110)

    def _prepare(self, index: int) -> None:
        self.volumes[index]

    def with_shuffled_images(self, seed: int = 0) -> CtDataset:
        """The same labels and reports, every one with the volume of another patient; always the same.

        Raises ValueError when more than half of the records are of one patient.
        """
        shuffled = copy.copy(self)
        shuffled.volume_of = other_group([record["patient"] for record in self.records], seed, "of patient")
        return shuffled


def _stays_out(step: object) -> bool:
    """Whether a step must not be cached: random, of unknown kind, or the one that unpacks the volume."""
    return isinstance(step, RandomizableTrait | FinishCased) or not isinstance(step, Transform)


def train_loader(dataset: CtDataset, batch_size: int, seed: int = 0, num_workers: int = 0) -> DataLoader:
    """Loader of one reconstruction per scan and epoch, see `sampling.train_loader`."""
    scans = [record["scan"] for record in dataset.records]
    return sampling.train_loader(dataset, scans, batch_size, seed, num_workers)
