"""One CT read by the model for the demo page: its voxels, its lesions one by one, and what is told of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from medbundles.atomic import write_text
from medbundles.precision import Precision
from monai.networks.utils import eval_mode
from numpy.typing import NDArray
from torch import Tensor

from rect_vlm.case_outputs import MASK, CaseResult, PredictionFolder
from rect_vlm.case_row import notes, prediction_row
from rect_vlm.case_sources import PREDICTION
from rect_vlm.case_volumes import study_of
from rect_vlm.findings import LESIONS
from rect_vlm.lesion_maps import lesion_box, lesion_maps, map_in_box
from rect_vlm.lesion_tokens import lesion_weights
from rect_vlm.model import ReCTVLM
from rect_vlm.slice_figures import to_ras
from rect_vlm.studies import Study
from rect_vlm.transforms import eval_transform

SHOWN_HU = (-1024.0, 3071.0)  # what the windows of the page can ask for
REPORT = "report.txt"

Tell = Callable[[float, str], None]


@dataclass(frozen=True)
class Reading:
    """How scans are read.

    finding_threshold: a finding is present above it, None takes those of the model; mask_threshold: a voxel
    belongs to a lesion above it; report: write one; max_new_tokens: of the report.
    """

    finding_threshold: float | None = None
    mask_threshold: float = 0.5
    report: bool = True
    max_new_tokens: int = 512


@dataclass(frozen=True, eq=False)
class Scan:
    """A CT that was read; volumes are RAS arrays (X, Y, Z): towards the right, the front and the head.

    hu: int16; lesions: uint8, bit k is LESIONS[k]; affine: (4, 4) of both; row: content of prediction.json;
    store: folder of this scan alone; in `<id>` lesions.nii.gz (on the CT's own voxels), prediction.json and
    report.txt.
    """

    hu: NDArray[np.int16]
    lesions: NDArray[np.uint8]
    affine: NDArray[np.float64]
    row: dict[str, Any]
    store: Path

    def mask(self, lesion: str) -> NDArray[np.bool_]:
        """Voxels of one lesion (X, Y, Z)."""
        return (self.lesions >> LESIONS.index(lesion)) & 1 > 0

    @property
    def outlined(self) -> list[str]:
        """The lesions that have voxels, the largest first."""
        volumes = {lesion: found["volume_ml"] for lesion, found in self.row["lesions"].items()}
        there = [lesion for k, lesion in enumerate(LESIONS) if (self.lesions & (1 << k)).any()]
        return sorted(there, key=lambda lesion: -volumes[lesion])

    @property
    def files(self) -> tuple[Path, Path, Path]:
        """Report, masks and prediction."""
        folder = self.store / self.row["id"]
        return folder / REPORT, folder / MASK, folder / PREDICTION

    def forget(self) -> None:
        """Remove the files."""
        shutil.rmtree(self.store, ignore_errors=True)


def read_scan(
    model: ReCTVLM,
    precision: Precision,
    case: Mapping[str, Any],
    store: Path,
    how: Reading,
    tell: Tell = lambda share, step: None,
) -> Scan:
    """Read a case of `cases_from` and write its files to `store/<id>`.

    Args:
        model: with classifier and localizer, and a generator where a report is asked for.
        precision: device and autocast of the model.
        case: `id`, `image` and whatever else `eval_transform` takes.
        store: a folder of this scan alone.
        how: thresholds and report.
        tell: called with the share that is done and the step that comes next.

    Raises:
        FileNotFoundError, ValueError: those of `volume_input.read_volume`.
    """
    transform: Any = eval_transform(model.geometry)
    tell(0.05, "Opening the CT")
    loaded = transform({**case}, end=1)  # the first step reads the files
    hu = loaded["image"].as_tensor()[0].clamp(*SHOWN_HU).to(torch.int16).numpy()
    tell(0.2, "Bringing it to the model's grid")
    study = study_of(transform(loaded, start=1))
    probabilities, masks, lines, report = _ask(model, precision, study, how, tell)
    tell(0.9, "Laying the lesions on the CT")
    maps = lesion_maps(study, masks, how.mask_threshold)
    row = prediction_row(
        {**case, "image": Path(case["image"]).name}, probabilities, masks, maps, lines, report,
        model.limits(how.finding_threshold),
    )  # fmt: skip
    row["segmentation"] = row["segmentation"] and Path(row["segmentation"]).name
    row["notes"] = notes(case, model.geometry, maps)
    PredictionFolder(store).save(CaseResult(row, maps, None))
    turned, affine = to_ras(hu, maps.affine)
    bits, _ = to_ras(_bits(study, masks, how.mask_threshold), maps.affine)
    scan = Scan(turned, bits, affine, row, store)
    write_text(scan.files[0], f"{report or ''}\n")
    return scan


def _ask(
    model: ReCTVLM, precision: Precision, study: Study, how: Reading, tell: Tell
) -> tuple[Tensor, Tensor, list[str], str | None]:
    """Probabilities (18,), masks (5, D, H, W), lines of evidence and report, on the CPU."""
    image = precision.to(study.image)
    regions = None if study.regions is None else study.regions.to(image.device)
    with eval_mode(model), precision.autocast():
        tell(0.35, "Looking for findings")
        seen = model.encode(image, regions)
        found = model.probabilities(seen)
        tell(0.45, "Outlining lesions")
        masks = model.masks(seen, image)
        lines = model.lines(found, masks, image, regions, study.spacing, how.finding_threshold)
        report = None
        if how.report:
            tell(0.55, "Writing the report")
            told = {**seen, "lesion_weights": lesion_weights(masks, model.geometry.patch)}
            write = model.load_generator().generate
            report = write(told, lines, max_new_tokens=how.max_new_tokens, do_sample=False)[0]
    return found[0].cpu(), masks[0].cpu(), lines[0], report


def _bits(study: Study, masks: Tensor, threshold: float) -> NDArray[np.uint8]:
    """Every lesion on the voxels of the file (X, Y, Z), one bit each, because lesions overlap."""
    shape = [int(size) for size in torch.as_tensor(study.source_shape)]
    bits = np.zeros(shape, dtype=np.uint8)
    for k, mask in enumerate(masks.float()):
        if (box := lesion_box(study, mask > threshold)) is not None:
            bits[box] |= (map_in_box(study, mask, box) > threshold).astype(np.uint8) << k
    return bits
