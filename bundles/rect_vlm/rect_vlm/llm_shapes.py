"""The language models of the presets without their weights: for counting parameters and memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from medbundles.text import require_text_extra

from rect_vlm.sizes import GEMMA_27B, LLAMA_8B, LLAMA_70B

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# The numbers of the config.json of each model that decide its shapes.
SHAPES: dict[str, dict[str, Any]] = {
    LLAMA_70B: {
        "model_type": "llama",
        "vocab_size": 128256,
        "hidden_size": 8192,
        "intermediate_size": 28672,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "tie_word_embeddings": False,
    },
    GEMMA_27B: {
        "model_type": "gemma2",
        "vocab_size": 256000,
        "hidden_size": 4608,
        "intermediate_size": 36864,
        "num_hidden_layers": 46,
        "num_attention_heads": 32,
        "num_key_value_heads": 16,
        "head_dim": 128,
        "tie_word_embeddings": True,
    },
    LLAMA_8B: {
        "model_type": "llama",
        "vocab_size": 128256,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "tie_word_embeddings": False,
    },
}


def empty_llm(name: str) -> PreTrainedModel:
    """A language model of the presets on the meta device: all its layers, no memory, no download.

    Raises:
        ValueError: not one of theirs.
    """
    if name not in SHAPES:
        raise ValueError(f"shapes are known of {', '.join(SHAPES)}, got {name!r}")
    require_text_extra()
    from transformers import AutoConfig, AutoModelForCausalLM

    numbers = dict(SHAPES[name])
    config = AutoConfig.for_model(numbers.pop("model_type"), **numbers)
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    return model
