"""Tiny training runs in this process, for the tests of training: settings, workflow, interruption."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from kif_mrg import phantom, training_report
from medbundles.engines import Checkpointing
from medbundles.report import HtmlReport
from monai.bundle import ConfigWorkflow

BUNDLE = Path(__file__).parents[3] / "bundles" / "kif_mrg"
COHORT = {"train": 8, "val": 3, "test": 1}
DECODER = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
TINY: dict[str, Any] = {
    "size": 64, "resize": 68, "batch_size": 4, "epochs": 2, "retrieved": 3, "memory_dim": 16,
    "decoder": DECODER, "max_new_tokens": 12, "min_new_tokens": 3, "amp": "off",
    "network_def#heads": 2, "network_def#ff": 16,
    "reporter#dim": 24, "reporter#tag_heads": 2, "reporter#fusion_heads": 2, "reporter#ff": 16,
}  # fmt: skip


def make_cohort(folder: Path) -> Path:
    """A simulated cohort with its images."""
    root = Path(phantom.simulated_cohort(0, COHORT, folder / "simulated", 64))
    phantom.ensure(root, progress=False)
    return root


def training(data: Path, out: Path, *overlays: str, **overrides: Any) -> ConfigWorkflow:
    """The training workflow over `data`, which writes to out/models and out/eval; not yet run."""
    folders = {"ckpt_dir": str(out / "models"), "output_dir": str(out / "eval"), "bundle_root": str(BUNDLE)}
    configs = [str(BUNDLE / "configs" / f"{name}.json") for name in ("train", *overlays)]
    workflow = ConfigWorkflow(
        configs,
        meta_file=str(BUNDLE / "configs" / "metadata.json"),
        logging_file=False,
        workflow_type="train",
        run_id="training",
        **{**TINY, **folders, "dataset_dir": str(data), **overrides},
    )
    workflow.initialize()
    return workflow


def train(data: Path, out: Path, *overlays: str, figures: bool = False, **overrides: Any) -> ConfigWorkflow:
    """Run the training workflow with a cache beside the data; errors come without MONAI's wrapping.

    Drawing the curves takes longer than all the rest: they are left out unless they are asked for.
    """
    workflow = training(data, out, *overlays, **overrides)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDBUNDLES_CACHE", str(data.parent / "cache"))
        if not figures:
            patch.setattr(training_report, "history_curves", lambda *_, **__: None)
            patch.setattr(HtmlReport, "figure", lambda *_: None)
        try:
            workflow.run()
        except RuntimeError as error:
            raise _innermost(error) from None
    return workflow


def _innermost(error: BaseException) -> BaseException:
    while error.__cause__ is not None and str(error).startswith("Failed to "):  # MONAI's wrapping
        error = error.__cause__
    return error


class Interruption(Exception):
    """Stands for whatever ends a run from outside."""


def interrupted(index: int, epoch: int) -> Callable[[Checkpointing, Any], None]:
    """A Checkpointing._save that is interrupted when it should write that epoch of that round."""
    save = Checkpointing._save

    def interrupting(self: Checkpointing, trainer: Any) -> None:
        if self.best_path.stem == f"round{index}" and trainer.state.epoch == epoch:
            raise Interruption
        save(self, trainer)

    return interrupting


def history(out: Path, index: int) -> list[dict[str, float]]:
    """Rows of a round's history, one per epoch."""
    return [
        json.loads(row) for row in (out / "eval" / f"round{index}_history.jsonl").read_text().splitlines()
    ]


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Whether two state dicts hold the same tensors to the last bit."""
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
