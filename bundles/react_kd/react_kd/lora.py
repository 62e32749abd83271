"""A Swin student whose encoders stay frozen but for low-rank adapters (LoRA, arXiv 2106.09685)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medbundles.engines.checkpointing import load_weights
from torch import nn

from react_kd.networks import Student

BLOCK1_MLP = ("stages.0.0.blocks.0.mlp.linear1",)


def lora_student(
    student_args: Mapping[str, Any],
    init_from: str | Path | None,
    r: int = 4,
    lora_alpha: int = 16,
    dropout: float = 0.1,
    targets: Sequence[str] = BLOCK1_MLP,
) -> Student:
    """Student with LoRA in its Swin encoders; projections, CBAM and head train in full.

    Before training it computes what the student of `init_from` computes: every adapter starts at zero.

    Args:
        student_args: arguments of Student besides `encoder`.
        init_from: weights of such a student without adapters; frozen random encoders would be of no use.
        r: rank of the adapters.
        lora_alpha: their scale is lora_alpha / r.
        dropout: dropout on the input of the adapters.
        targets: linear layers of a SwinEncoder, such as `stages.1.0.blocks.0.attn.qkv`.

    Raises:
        ValueError: no `init_from`, weights of another architecture, a target that is no linear layer.
        FileNotFoundError: no such file.
        ImportError: peft is not installed.
    """
    if init_from is None:
        raise ValueError("init_from must name the weights of a trained Swin student, got None")
    student = Student(**{**student_args, "encoder": "swin"})
    load_weights(student, init_from, "init_from")
    for encoder in (student.ct, student.pet):
        _adapt(encoder, targets, r, lora_alpha, dropout)
    return student


def _adapt(encoder: nn.Module, targets: Sequence[str], r: int, lora_alpha: int, dropout: float) -> None:
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ImportError("LoRA needs peft: pip install 'medbundles[text]'") from error
    linear = {name for name, module in encoder.named_modules() if isinstance(module, nn.Linear)}
    unknown = sorted(set(targets) - linear)
    if unknown or not targets:
        raise ValueError(
            f"targets must name linear layers of the encoder, got {unknown}; it has {sorted(linear)}"
        )
    config = LoraConfig(
        r=r, lora_alpha=lora_alpha, lora_dropout=dropout, bias="none", target_modules=list(targets)
    )
    inject_adapter_in_model(config, encoder)  # freezes everything else in the encoder
