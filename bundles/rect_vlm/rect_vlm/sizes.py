"""The sizes of the model as plain numbers, one entry per preset."""

from __future__ import annotations

from typing import Any

LLAMA_70B, LLAMA_8B = "meta-llama/Llama-3.1-70B-Instruct", "meta-llama/Llama-3.1-8B-Instruct"
GEMMA_27B = "google/gemma-2-27b-it"
CLINICAL_BERT = "emilyalsentzer/Bio_ClinicalBERT"

# Arguments of ThreeDVisionEncoder, MultiLabelClassifier, LesionLocalizer, ReportGenerator; widths, grid and
# image size that they share are filled in by model_build.
SIZES: dict[str, dict[str, Any]] = {
    "large": {
        "geometry": "ctrate",
        "vision": {"embed_dim": 768, "depth": 12, "num_heads": 12, "checkpointing": True},
        "classifier": {"text_dim": 768},
        "localizer": {"text_dim": 768, "dim": 512, "base_channels": 64},
        "generator": {"projector_heads": 12, "lora_r": 64, "lora_alpha": 128},
        "llm_name": LLAMA_70B,
        "text_model": CLINICAL_BERT,
    },
    "medium": {
        "geometry": "ctrate",
        "vision": {"embed_dim": 768, "depth": 12, "num_heads": 12, "checkpointing": True},
        "classifier": {"text_dim": 768},
        "localizer": {"text_dim": 768, "dim": 512, "base_channels": 48},
        "generator": {"projector_heads": 12, "lora_r": 64, "lora_alpha": 128},
        "llm_name": GEMMA_27B,
        "text_model": CLINICAL_BERT,
    },
    "small": {
        "geometry": "ctrate",
        "vision": {"embed_dim": 512, "depth": 8, "num_heads": 8, "checkpointing": True},
        "classifier": {"text_dim": 768},
        "localizer": {"text_dim": 768, "dim": 384, "base_channels": 32},
        "generator": {"projector_heads": 8, "lora_r": 32, "lora_alpha": 64},
        "llm_name": LLAMA_8B,
        "text_model": CLINICAL_BERT,
    },
    "cpu": {
        "geometry": "cpu",
        "vision": {"embed_dim": 64, "depth": 2, "num_heads": 4},
        "classifier": {"text_dim": 384, "proj_dim": 64, "hidden": 128},
        "localizer": {
            "text_dim": 384, "dim": 64, "heads": 2, "denoise_layers": 2,
            "base_channels": 16, "levels": 2, "stem_channels": [8, 16], "fine_kernel": 1, "norm": "batch",
        },
        "generator": {
            "num_visual_tokens": 16, "projector_layers": 2, "projector_heads": 4,
            "lora_r": 8, "lora_alpha": 16,
        },
        "llm_name": "tiny",
        "text_model": "auto",
    },
}  # fmt: skip
