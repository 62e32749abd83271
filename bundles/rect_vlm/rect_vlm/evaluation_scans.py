"""One pass of a model over scans: findings, evidence, report, and how well its lesions are outlined."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from medbundles.precision import Precision
from monai.inferers import Inferer
from monai.networks.utils import eval_mode
from torch import Tensor
from tqdm import tqdm

from rect_vlm.case_volumes import study_of
from rect_vlm.data import CtDataset, eval_loader
from rect_vlm.lesion_maps import LesionMaps, lesion_maps
from rect_vlm.lesion_scores import scan_scores
from rect_vlm.lesion_tokens import with_lesions
from rect_vlm.model import ReCTVLM


@dataclass(frozen=True)
class Reading:
    """What the model says of one scan.

    probabilities: (18,) of the findings, on the CPU. evidence: lines the report was written with. report:
    None where none was asked for. lesions: measures by lesion, of `scan_scores`.
    """

    probabilities: Tensor
    evidence: list[str]
    report: str | None
    lesions: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class ScanReader:
    """A trained model with the settings it is read out by.

    Args:
        model: in its place on the device.
        precision: device and autocast.
        inferer: runs the encoder.
        search: arguments of the report generator; None writes no reports.
        mask_threshold: a voxel belongs to a lesion above it.
        batch_size, num_workers: of the volumes.
    """

    model: ReCTVLM
    precision: Precision
    inferer: Inferer
    search: Mapping[str, Any] | None
    mask_threshold: float = 0.5
    batch_size: int = 8
    num_workers: int = 0

    def findings(self, dataset: CtDataset, desc: str) -> Tensor:
        """Probabilities (N, 18) alone."""
        return torch.cat([self._see(batch)[1].cpu() for batch in self._batches(dataset, desc)])

    def read(self, dataset: CtDataset, desc: str, outline: bool = True) -> list[Reading]:
        """Everything about the scans of a dataset, in its order.

        Args:
            dataset: with affines, see `eval_transform`.
            desc: of the progress bar.
            outline: compare the masks with the true ones, which must be those of the same volumes.
        """
        readings: list[Reading] = []
        for batch in self._batches(dataset, desc):
            vision, found, masks = self._see(batch)
            samples = _samples(batch)
            lines = self._lines(samples, found, masks)
            reports = self._write(vision, masks, lines)
            for i, sample in enumerate(samples):
                record = dataset.records[len(readings)]
                scores = (
                    scan_scores(record, study_of(sample), masks[i].cpu(), self.mask_threshold)
                    if outline
                    else {}
                )
                readings.append(Reading(found[i].cpu(), lines[i], reports[i], scores))
        return readings

    def maps(self, dataset: CtDataset, index: int) -> LesionMaps:
        """The lesions of one scan on the voxels of its file."""
        loader = eval_loader(torch.utils.data.Subset(dataset, [index]))
        batch = next(iter(loader))
        masks = self._see(batch)[2].cpu()
        return lesion_maps(study_of(_samples(batch)[0]), masks[0], self.mask_threshold)

    def _batches(self, dataset: CtDataset, desc: str) -> Iterator[dict[str, Any]]:
        return iter(tqdm(eval_loader(dataset, self.batch_size, self.num_workers), desc=desc, ncols=110))

    def _see(self, batch: Mapping[str, Any]) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """Features, probabilities (B, 18) and probability masks (B, 5, D, H, W)."""
        image, regions = self.precision.to(batch["image"]), batch["regions"].to(self.precision.device)
        with eval_mode(self.model), self.precision.autocast():
            vision = self.inferer(image, self.model.encode, regions=regions)
            return vision, self.model.probabilities(vision), self.model.masks(vision, image)

    def _lines(self, samples: Sequence[Mapping[str, Any]], found: Tensor, masks: Tensor) -> list[list[str]]:
        lines = []
        for sample, probabilities, mask in zip(samples, found.cpu(), masks.cpu(), strict=True):
            study = study_of(sample)
            told = self.model.lines(
                probabilities[None], mask[None], study.image, study.regions, study.spacing
            )
            lines.append(told[0])
        return lines

    def _write(self, vision: Mapping[str, Tensor], masks: Tensor, lines: list[list[str]]) -> Sequence[Any]:
        if self.search is None:
            return [None] * len(lines)
        told = with_lesions(vision, masks, self.model.geometry.patch)
        with eval_mode(self.model), self.precision.autocast():
            generator = self.model.load_generator()
            return generator.generate(told, lines, **self.search)


def _samples(batch: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The samples of a batch, which `collate` made."""
    return [{key: value[i] for key, value in batch.items()} for i in range(len(batch["image"]))]
