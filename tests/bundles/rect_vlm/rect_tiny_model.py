"""A ReCTVLM of a few thousand weights on the grid of the tiny chests."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from rect_features import text
from rect_llm import shake_lora
from rect_tiny_ctrate import GEOMETRY
from rect_vlm.model import ReCTVLM

GENERATOR = {
    "num_visual_tokens": 4, "projector_layers": 1, "projector_heads": 2, "lora_r": 2, "lora_alpha": 4,
    "max_target": 64,
}  # fmt: skip


def tiny_config(llm: str | Path = "tiny", **changes: Any) -> dict[str, Any]:
    return {
        "geometry": dataclasses.asdict(GEOMETRY),
        "vision": {"embed_dim": 16, "depth": 1, "num_heads": 2},
        "classifier": {"text_dim": 12, "proj_dim": 8, "hidden": 8},
        "localizer": {
            "text_dim": 12, "text_tokens": 7, "dim": 16, "heads": 2, "denoise_layers": 1,
            "base_channels": 8, "levels": 1, "stem_channels": [8],
        },
        "generator": GENERATOR,
        "llm_name": str(llm),
        "text_model": "tiny",
    } | changes  # fmt: skip


def tiny_model(llm: str | Path = "tiny", **changes: Any) -> ReCTVLM:
    """With texts, in eval mode; masks and findings differ from scan to scan."""
    torch.manual_seed(0)
    model = ReCTVLM.from_config(tiny_config(llm, **changes))
    tokens, mask = text()
    if model.classifier is not None:
        model.classifier.set_text(torch.randn(18, 12))
    if model.localizer is not None:
        model.localizer.set_text(tokens, mask)
        for head in (model.localizer.head, model.localizer.grid_head):
            torch.nn.init.normal_(head.weight, std=2.0)
            torch.nn.init.zeros_(head.bias)
    return model.eval()


def trained_model(llm: str | Path) -> ReCTVLM:
    """With a generator whose LoRA and projector are not as they start."""
    model = tiny_model(llm)
    shake_lora(model.load_generator().eval())
    for weight in model.modules_by_name["projector"]:
        torch.nn.init.normal_(weight, std=0.1)
    return model


def volumes(count: int = 2) -> torch.Tensor:
    """In model space."""
    return torch.rand(count, 1, *GEOMETRY.img_size) * 2 - 1
