"""Runs of rect_vlm's train.json in this process, with a model of a few thousand weights on a few scans."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from medbundles.errors import without_wrappers
from monai.bundle import ConfigWorkflow
from rect_tiny_model import tiny_config
from rect_vlm.phantom import simulated_cohort
from torch import Tensor

BUNDLE = Path(__file__).parents[3] / "bundles" / "rect_vlm"
CONFIG = BUNDLE / "configs" / "train.json"
TRAINED = {
    "1.1": ("vision", "classifier"),
    "1.2": ("vision", "localizer"),
    "1.3": ("projector", "lora"),
    "2": ("vision", "classifier", "localizer", "projector", "lora"),
    "3": ("lora",),
}


def make_cohort(folder: Path) -> Path:
    return Path(simulated_cohort(seed=3, train=6, valid=3, folder=folder / "cohort"))


def numbers(llm: Path) -> dict[str, Any]:
    """A tiny model whose heads read the tiny text encoder."""
    config = tiny_config(llm)
    config["classifier"] = {**config["classifier"], "text_dim": 384}
    config["localizer"] = {**config["localizer"], "text_dim": 384, "text_tokens": 64}
    return config


def workflow(cohort: Path, out: Path, llm: Path, **overrides: Any) -> ConfigWorkflow:
    """The initialised training workflow: one epoch of two batches per phase."""
    table = {
        f"phase_table#{phase}#{key}": value
        for phase in ("1.1", "1.2", "1.3", "2")
        for key, value in (("epochs", 1), ("batch_size", 3))
    }
    grpo = {"steps": 2, "validate_every": 1, "studies": 3, "group": 2, "max_tokens": 4}
    settings = {
        "bundle_root": str(BUNDLE), "dataset_dir": str(cohort), "ckpt_dir": str(out / "models"),
        "output_dir": str(out / "eval"), "device": torch.device("cpu"), "amp": "off", "val_reports": 3,
        "max_new_tokens": 4, "model_config": numbers(llm), "phase_table#3#options": grpo,
        "phase_table#3#batch_size": 3, **table, **overrides,
    }  # fmt: skip
    run = ConfigWorkflow(str(CONFIG), logging_file=False, workflow_type="train", **settings)
    run.initialize()
    return run


def train(cohort: Path, out: Path, llm: Path, *phases: str, **overrides: Any) -> ConfigWorkflow:
    """Run the named phases; raises what MONAI's config wraps."""
    run = workflow(cohort, out, llm, phases=list(phases), **overrides)
    try:
        run.run()
    except RuntimeError as error:
        raise without_wrappers(error) from None
    return run


def checkpoint(out: Path, phase: str) -> dict[str, Tensor]:
    path = out / "models" / f"phase_{phase.replace('.', '_')}.pt"
    return torch.load(path, map_location="cpu", weights_only=True)


def history(out: Path, phase: str) -> list[dict[str, float]]:
    path = out / "eval" / f"phase_{phase.replace('.', '_')}_history.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]
