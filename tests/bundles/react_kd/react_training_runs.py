"""Tiny training runs in this process, for the tests of training: settings, workflow, interruption."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from medbundles.engines import Checkpointing
from monai.bundle import ConfigWorkflow

BUNDLE = Path(__file__).parents[3] / "bundles" / "react_kd"
COHORT = {"training": 6, "training_ungraded": 1, "training_ungraded_ct": 1, "validation": 3, "test": 0}
TINY = {
    "size": [16, 16, 8],
    "batch_size": 4,
    "epochs": 3,
    "teacher_epochs": 2,
    "dose_levels": [None, 1e4],
    "cache": "persistent",
    "amp": "off",
}


def training(cohort: Path, out: Path, *overlays: str, **overrides: Any) -> ConfigWorkflow:
    """The training workflow over `cohort`, which writes to out/models and out/eval; not yet run."""
    folders = {"ckpt_dir": str(out / "models"), "output_dir": str(out / "eval"), "bundle_root": str(BUNDLE)}
    configs = [str(BUNDLE / "configs" / f"{name}.json") for name in ("train", *overlays)]
    workflow = ConfigWorkflow(
        configs,
        meta_file=str(BUNDLE / "configs" / "metadata.json"),
        logging_file=False,
        workflow_type="train",
        run_id="training",
        **{**TINY, **folders, "dataset_dir": str(cohort), **overrides},
    )
    workflow.initialize()
    return workflow


def train(cohort: Path, out: Path, *overlays: str, **overrides: Any) -> ConfigWorkflow:
    """Run the training workflow with a cache beside the cohort; errors come without MONAI's wrapping."""
    workflow = training(cohort, out, *overlays, **overrides)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDBUNDLES_CACHE", str(cohort.parent / "cache"))
        try:
            workflow.run()
        except RuntimeError as error:
            raise _innermost(error) from None
    return workflow


def _innermost(error: BaseException) -> BaseException:
    while error.__cause__ is not None and str(error).startswith("Failed to "):  # MONAI's wrapping
        error = error.__cause__
    return error


def interrupted(name: str, epoch: int, action: Callable[[], None]) -> Callable[[Checkpointing, Any], None]:
    """A Checkpointing._save that calls `action` when it should write `<name>_resume.pt` of that epoch."""
    save = Checkpointing._save

    def interrupting(self: Checkpointing, trainer: Any) -> None:
        if self.resume_path.name == f"{name}_resume.pt" and trainer.state.epoch == epoch:
            action()
        save(self, trainer)

    return interrupting


def history(out: Path, name: str = "student") -> list[dict[str, float]]:
    """Rows of `<name>_history.jsonl`, one per epoch."""
    return [json.loads(row) for row in (out / "eval" / f"{name}_history.jsonl").read_text().splitlines()]


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Whether two state dicts hold the same tensors to the last bit."""
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
