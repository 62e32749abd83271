"""From which probability on each finding is present: chosen on validation scans, kept with the model."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from medbundles.precision import Precision
from medbundles.tables import write_json
from monai.networks.utils import eval_mode

from rect_vlm.finding_scores import best_thresholds
from rect_vlm.findings import FINDINGS
from rect_vlm.predictions import HALF, finding_limits

if TYPE_CHECKING:
    from rect_vlm.model import ReCTVLM

logger = logging.getLogger(__name__)

THRESHOLDS = "thresholds.json"
LEAST = 5  # scans with the finding, and without: the best F1 of fewer is chance


def validated_thresholds(model: ReCTVLM, precision: Precision, loader: Any) -> tuple[float, ...]:
    """Of each finding the threshold of highest F1 on the scans of a loader.

    It is 0.5 for a finding that fewer than 5 of them have, or fewer than 5 have not.

    Args:
        model: with its classifier.
        precision: device and autocast.
        loader: batches of image, regions and labels.
    """
    precision.prepare(model)
    found, labels = [], []
    for data in loader:
        batch = precision.batch({key: data[key] for key in ("image", "regions", "labels")})
        with eval_mode(model), precision.autocast():
            found.append(model.probabilities(model.encode(batch["image"], batch["regions"])).cpu())
        labels.append(batch["labels"].cpu())
    truth = torch.cat(labels).double().numpy()
    chosen = best_thresholds(torch.cat(found).double().numpy(), truth)
    few = np.minimum((truth > 0).sum(0), (truth == 0).sum(0)) < LEAST
    limits = finding_limits(np.where(few | np.isnan(chosen), HALF, chosen).tolist())
    told = ", ".join(f"{name} {limit:.2f}" for name, limit in zip(FINDINGS, limits, strict=True))
    logger.info("thresholds of highest F1 on %d scans: %s", len(truth), told)
    return limits


def write_thresholds(folder: Path, thresholds: Sequence[float] | None) -> None:
    """Write thresholds.json, by finding; None removes an old one."""
    if thresholds is None:
        (folder / THRESHOLDS).unlink(missing_ok=True)
    else:
        write_json(folder / THRESHOLDS, dict(zip(FINDINGS, finding_limits(thresholds), strict=True)))


def read_thresholds(folder: Path) -> tuple[float, ...] | None:
    """The thresholds of the 18 findings in a folder; None where it holds none.

    Raises:
        ValueError: a file that does not name a probability for every finding.
    """
    file = folder / THRESHOLDS
    if not file.is_file():
        return None
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        return finding_limits([float(told[name]) for name in FINDINGS])
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{file} must hold a probability for each of the {len(FINDINGS)} findings: {error!r}"
        ) from error
