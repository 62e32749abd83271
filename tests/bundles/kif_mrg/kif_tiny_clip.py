"""A CLIP of a few thousand weights on disk."""

from __future__ import annotations

import json
from pathlib import Path

import torch

SIZE, DIM = 32, 12
NORMALISATION = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.25, 0.3]}


def make_clip(folder: Path) -> str:
    """What CLIPModel.save_pretrained writes, of random weights, with a vocabulary of letters."""
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

    letters = [chr(i) for i in range(33, 127)]
    pieces = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocab = {piece: i for i, piece in enumerate(pieces)}
    CLIPTokenizer(vocab=vocab, merges=[]).save_pretrained(folder)
    small = {
        "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
        "projection_dim": DIM, "initializer_factor": 10.0,
    }  # fmt: skip
    text = small | {
        "vocab_size": len(vocab), "max_position_embeddings": 24, "bos_token_id": len(vocab) - 2,
        "eos_token_id": len(vocab) - 1, "pad_token_id": len(vocab) - 1,
    }  # fmt: skip
    vision = small | {"image_size": SIZE, "patch_size": 16}
    torch.manual_seed(0)
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=DIM)
    CLIPModel(config).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(NORMALISATION))
    return str(folder)
