"""Runs of rect_vlm's inference.json in this process with a model of a few thousand weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from medbundles.errors import without_wrappers
from monai.bundle import ConfigWorkflow
from rect_tiny_ctrate import AFFINE, chest, save
from rect_tiny_model import tiny_model

BUNDLE = Path(__file__).parents[3] / "bundles" / "rect_vlm"
CONFIG = BUNDLE / "configs" / "inference.json"
# The same numbers on any machine, and no reports: the language model is the slowest part.
QUICK = {"amp": "off", "device": torch.device("cpu"), "report": False, "pictures": False, "page_cases": 0}


def save_model(folder: Path, seed: int = 0) -> Path:
    """Write `<folder>/rect_vlm` of a model without a generator, and return the folder."""
    model = tiny_model(generator=None)
    torch.manual_seed(seed)
    assert model.classifier is not None
    for parameter in model.classifier.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    model.save_pretrained(folder / "rect_vlm")
    return folder


def write_chests(folder: Path, *names: str) -> Path:
    """Chests of different noise in files of these names; the axes of every second one are turned."""
    for i, name in enumerate(names):
        save(folder / f"{name}.nii.gz", chest(seed=i)[0], ("LPS", "PSR")[i % 2])
    return folder


def workflow(models: Path, data: str | Path, out: Path, **overrides: Any) -> ConfigWorkflow:
    """The initialised inference workflow."""
    folders = {"ckpt_dir": str(models), "dataset_dir": str(data), "output_dir": str(out)}
    settings = {**folders, "bundle_root": str(BUNDLE), **QUICK, **overrides}
    run = ConfigWorkflow(str(CONFIG), logging_file=False, workflow_type="inference", **settings)
    run.initialize()
    return run


def predict(models: Path, data: str | Path, out: Path, **overrides: Any) -> dict[str, dict[str, Any]]:
    """Run inference.json and return the predictions by id; raises what MONAI's config wraps."""
    run = workflow(models, data, out, **overrides)
    try:
        run.run()
    except RuntimeError as error:
        raise without_wrappers(error) from None
    return predictions(out)


def predictions(out: Path) -> dict[str, dict[str, Any]]:
    """The rows of predictions.jsonl by id; they must be those of the case folders."""
    rows = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    assert rows == [json.loads((out / row["id"] / "prediction.json").read_text()) for row in rows]
    return {row["id"]: row for row in rows}


def array(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


__all__ = ["AFFINE", "array", "predict", "predictions", "save_model", "workflow", "write_chests"]
