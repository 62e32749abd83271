"""A tiny language model and report generator, with reports and random features to write about."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from rect_features import features
from rect_vlm.generator import ReportGenerator
from rect_vlm.tiny_llm import tiny_llm
from torch import Tensor

WIDTH, GRID = 16, (2, 3, 2)
REPORTS = [
    "FINDINGS:\nPleural effusion on the right.\n\nIMPRESSION:\nEffusion.",
    "FINDINGS:\nThe lungs are clear; no pleural effusion was observed, no nodule.\n\nIMPRESSION:\nNormal.",
]
LINES = [["[FINDING] Pleural effusion detected in right lower lobe", "[FINDING] Emphysema (classifier)"], []]


def tiny_folder(store: Path) -> Path:
    """A language model that has hardly learned anything, which is enough to test everything around it."""
    return tiny_llm(REPORTS, store, steps=1, progress=False)


def tiny_generator(folder: Path, **changes: Any) -> ReportGenerator:
    torch.manual_seed(0)
    numbers = {
        "num_visual_tokens": 4, "projector_layers": 1, "projector_heads": 2, "lora_r": 4, "lora_alpha": 8,
        "lora_dropout": 0.2,
    }  # fmt: skip
    return ReportGenerator(str(folder), WIDTH, **{**numbers, **changes})


def tiny_vision(studies: int = 2) -> dict[str, Tensor]:
    return features(studies, WIDTH, GRID)


def shake_lora(generator: ReportGenerator) -> None:
    """Give LoRA weights that say something, as after a training."""
    with torch.no_grad():
        for weight in generator.parameters_by_part()["lora"]:
            weight.normal_(std=0.1)
