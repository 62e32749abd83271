"""A tiny cohort with both classes of two findings, a saved model, and the evaluate workflow on both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import rect_vlm
import torch
from monai.bundle import ConfigWorkflow
from rect_llm import tiny_folder
from rect_tiny_ctrate import chest, save, write_rows
from rect_tiny_model import trained_model
from rect_vlm.findings import FINDINGS
from rect_vlm.model import ReCTVLM

BUNDLE = Path(rect_vlm.__file__).parents[1]
FILES = [str(BUNDLE / "configs" / name) for name in ("train.json", "evaluate.json")]
SIZES = {"train": 6, "valid": 5}
SMALL: dict[str, Any] = {
    "bundle_root": str(BUNDLE), "amp": "off", "device": torch.device("cpu"), "cache": "memory",
    "max_new_tokens": 12, "n_bootstrap": 20, "gallery": 1, "threshold_scans": 2, "val_batch_size": 3,
}  # fmt: skip
NODULE = "A nodule was observed in the right upper lobe."
CLEAR = "No nodule was observed."


def has_nodule(number: int) -> bool:
    return number % 2 == 1


def write_cohort(root: Path) -> Path:
    """Odd scans have a nodule, with a mask; even ones an empty mask. Axes differ from scan to scan."""
    for split, count in SIZES.items():
        labels, reports = [], []
        for number in range(1, count + 1):
            name = f"{split}_{number}_a_1"
            place = Path(f"{split}_fixed/{split}_{number}/{split}_{number}_a/{name}.nii.gz")
            hu, lesion, lobes = chest(seed=number)
            save(root / place, hu, ("LPS", "PSR")[number % 2])
            save(root / "ts_seg" / "ts_total" / place, lobes)
            mask = lesion if has_nodule(number) else np.zeros_like(lesion)
            save(root / "lesion_masks" / "lung_nodule" / f"{name}.nii.gz", mask)
            positive = {"Lung nodule": has_nodule(number), "Emphysema": number < 3}
            row = {finding: int(positive.get(finding, False)) for finding in FINDINGS}
            labels.append({"VolumeName": f"{name}.nii.gz", **row})
            said = {
                "Findings_EN": NODULE if has_nodule(number) else CLEAR,
                "Impressions_EN": f"Scan {number}.",
            }
            given = {"ClinicalInformation_EN": "Not given.", "Technique_EN": "Not given."}
            reports.append({"VolumeName": f"{name}.nii.gz", **given, **said})
        write_rows(root / "multi_abnormality_labels" / f"{split}_predicted_labels.csv", labels)
        long = {"train": "train", "valid": "validation"}[split]
        write_rows(root / "radiology_text_reports" / f"{long}_reports.csv", reports)
    return root


def write_model(folder: Path) -> ReCTVLM:
    """An untrained model whose findings, masks and reports depend on the image."""
    model = trained_model(tiny_folder(folder / "llm"))
    assert model.classifier is not None
    for parameter in model.classifier.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    model.save_pretrained(folder / "models" / "rect_vlm")
    return model


def workflow(folder: Path, **overrides: Any) -> ConfigWorkflow:
    places = {"dataset_dir": "data", "ckpt_dir": "models", "output_dir": "out"}
    settings = {**SMALL, **{key: str(folder / name) for key, name in places.items()}, **overrides}
    return ConfigWorkflow(FILES, logging_file=False, workflow_type="infer", **settings)


def run(folder: Path, **overrides: Any) -> Path:
    """Evaluate and return the folder of the results."""
    flow = workflow(folder, **overrides)
    flow.initialize()
    flow.run()
    return Path(overrides.get("output_dir", folder / "out")) / "evaluation"
