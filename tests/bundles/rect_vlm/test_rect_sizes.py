"""Parameters of the presets, counted without memory, and what a training step keeps."""

from __future__ import annotations

import pytest
import torch
from rect_vlm.activations import fake_tensors, saved_bytes
from rect_vlm.memory import encoder_bytes, llm_bytes, localizer_bytes, memory, memory_of
from rect_vlm.model_build import build_classifier, build_localizer, build_vision, full_config
from rect_vlm.sizes import SIZES
from torch import nn
from torch.nn import functional as F

MILLIONS = {"large": 165.4, "medium": 154.7, "small": 55.6}  # encoder, classifier and localizer


@pytest.mark.parametrize("size", MILLIONS)
def test_encoder_and_heads_have_the_planned_number_of_parameters(size: str) -> None:
    config = full_config({"size": size})
    with torch.device("meta"):
        vision = build_vision(config)
        parts = [vision, build_classifier(config, vision), build_localizer(config, vision)]
    counted = sum(weight.numel() for part in parts for weight in part.parameters()) / 1e6
    assert counted == pytest.approx(MILLIONS[size], abs=0.1)


@pytest.mark.parametrize("size", SIZES)
def test_every_preset_builds_and_lora_has_scale_two(size: str) -> None:
    config = full_config({"size": size})
    assert config["generator"]["lora_alpha"] == 2 * config["generator"]["lora_r"]
    with torch.device("meta"):
        vision = build_vision(config)
    assert vision.embed_dim % config["generator"]["projector_heads"] == 0
    assert vision.checkpointing == (size != "cpu")


def test_what_two_layers_keep_is_what_can_be_counted_by_hand() -> None:
    net = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4))
    x = torch.randn(5, 8)
    assert saved_bytes(lambda: net(x), net) == 4 * (5 * 8 + 5 * 32)  # input, and ReLU's output once
    with fake_tensors():
        net = nn.Sequential(nn.Linear(8, 32, bias=False))
        x = torch.empty(5, 8, dtype=torch.bfloat16)
        # Autocast keeps its own copy of the weight as well.
        assert saved_bytes(lambda: net(x), net) == 2 * 5 * 8


def test_attention_is_counted_without_its_scores() -> None:
    def kept(tokens: int) -> int:
        q = torch.empty(1, 2, tokens, 8, device="meta", requires_grad=True)
        return saved_bytes(lambda: F.scaled_dot_product_attention(q, q, q), nn.Identity())

    assert kept(64) == 4 * (2 * 64 * 8) * 2 + 4 * 2 * 64  # q = k = v once, output; sums
    assert kept(128) == 2 * kept(64)


def test_checkpointing_keeps_less_and_lesions_cost_more() -> None:
    config = full_config({"size": "cpu", "vision": {"depth": 6}})
    with_it = {**config, "vision": {**config["vision"], "checkpointing": True}}
    assert 0 < encoder_bytes(with_it) < encoder_bytes(config) / 2
    wider = {**config, "localizer": {**config["localizer"], "base_channels": 32}}
    assert 0 < localizer_bytes(config) < localizer_bytes(wider)


def test_the_language_model_keeps_its_layers_inputs_and_the_logits() -> None:
    config = full_config({"size": "small"})
    vocabulary, inputs = 128256, 32 * (256 + 700) * 4096 * 2
    logits = 512 * vocabulary * 14
    one_layer = llm_bytes(config, vocabulary) - inputs - logits
    tokens = 956
    # At least the input of every linear layer of the block, bf16; at most a few times that.
    least = 2 * tokens * (3 * 4096 + 14336)
    assert least < one_layer < 6 * least


@pytest.mark.slow
def test_the_small_preset_trains_on_a_gpu_of_24_gb() -> None:
    row = memory_of("small")
    parts = [value for key, value in row.items() if key not in ("size", "trained, millions", "sum")]
    assert row["sum"] == pytest.approx(sum(parts))
    assert min(parts) > 0
    assert row["sum"] < 24
    assert row["trained, millions"] == pytest.approx(109.3, abs=0.2)


def test_memory_of_a_size_without_a_known_language_model_is_refused() -> None:
    with pytest.raises(ValueError, match="shapes are known of"):
        memory("cpu")
    with pytest.raises(ValueError, match="size must be one of"):
        memory("huge")
