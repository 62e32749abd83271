"""A tiny simulated cohort, an untrained reporter as training leaves it, and the evaluate workflow on both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kif_mrg
import torch
from kif_mrg import phantom
from kif_mrg.annotation import read_annotation
from kif_mrg.diagnosis import DiagnosisNet
from kif_mrg.memory import make_memory
from kif_mrg.networks import KifReporter
from kif_mrg.text import make_tokenizer
from monai.bundle import ConfigWorkflow

CONFIGS = Path(kif_mrg.__file__).parents[1] / "configs"
FILES = [str(CONFIGS / "train.json"), str(CONFIGS / "evaluate.json")]
SIZES = {"train": 14, "val": 5, "test": 6}
DECODER = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
SMALL: dict[str, Any] = {
    "size": 64, "resize": 64, "retrieved": 3, "decoder": DECODER, "max_new_tokens": 12, "min_new_tokens": 3,
    "num_beams": 2, "n_bootstrap": 20, "gallery": 3, "amp": "off", "memory_dim": 16,
    "network_def#heads": 2, "network_def#ff": 16, "reporter#dim": 24, "reporter#tag_heads": 2,
    "reporter#fusion_heads": 2, "reporter#ff": 16,
}  # fmt: skip


def write_cohort(folder: Path, seed: int = 0) -> str:
    return phantom.simulated_cohort(seed, SIZES, folder / "dataset_dir", 64)


def write_checkpoint(folder: Path) -> KifReporter:
    """An untrained reporter of the cohort as training leaves it; what it says depends on the image."""
    torch.manual_seed(0)
    splits = read_annotation(folder / "dataset_dir")
    phantom.ensure(folder / "dataset_dir", progress=False)
    ckpt = folder / "ckpt_dir"
    memory = make_memory(splits, ckpt / "memory.npz", dim=SMALL["memory_dim"])
    memory.ensure()
    diagnosis = DiagnosisNet(memory_dim=SMALL["memory_dim"], heads=2, ff=16)
    torch.nn.init.normal_(diagnosis.classify.weight)
    diagnosis.set_prior_memory(memory.features)
    tokenizer = make_tokenizer(ckpt / "tokenizer", splits)
    sizes = {"dim": 24, "tag_heads": 2, "fusion_heads": 2, "ff": 16, "decoder": DECODER}
    reporter = KifReporter(diagnosis, tokenizer, **sizes).eval()
    for name, value in reporter.decoder.named_parameters():
        if name.endswith("weight") and ("attention" in name or "transform" in name) and value.ndim > 1:
            value.data.mul_(8)
    torch.save(reporter.state_dict(), ckpt / "reporter.pt")
    return reporter


def workflow(folder: Path, **overrides: Any) -> ConfigWorkflow:
    places = {name: str(folder / name) for name in ("dataset_dir", "ckpt_dir", "output_dir")}
    settings = {**SMALL, **places, **overrides}
    return ConfigWorkflow(FILES, logging_file=False, workflow_type="infer", **settings)


def run(folder: Path, **overrides: Any) -> Path:
    """Evaluate and return the folder of the results."""
    flow = workflow(folder, **overrides)
    flow.initialize()
    flow.run()
    return Path(overrides.get("output_dir", folder / "output_dir")) / "evaluation"
