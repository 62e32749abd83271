"""GPU memory of a training step, by preset and by what takes it: counted from the networks, not measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from medbundles.tables import markdown_table
from torch import nn

from rect_vlm.activations import fake_tensors, saved_bytes
from rect_vlm.llm import add_lora
from rect_vlm.llm_shapes import SHAPES, empty_llm
from rect_vlm.model_build import Config, build_classifier, build_localizer, build_vision, full_config
from rect_vlm.projector import VisualProjector
from rect_vlm.sizes import SIZES

GB = 1e9
TRAINED_BYTES = 16  # of a parameter: weight, gradient and the two moments of Adam, float32
# Of a 4-bit weight: NF4, a scale per 64 weights in 8 bits, a scale of scales (QLoRA, arXiv 2305.14314).
NF4_BYTES = (4 + 8 / 64 + 32 / (64 * 256)) / 8
COUNTED = tuple(name for name, numbers in SIZES.items() if numbers["llm_name"] in SHAPES)
LESIONS_PER_STEP = 2
TEXT_TOKENS, REPORT_TOKENS = 700, 512  # evidence, instruction and report; report alone
LOGIT_BYTES = 2 + 3 * 4  # bf16; float32 copy, logarithms and gradient


def memory(sizes: str | Sequence[str] = COUNTED) -> str:
    """Table of the memory (GB) of a joint training step with one scan, for sizes large, medium and small.

    Weights of the language model in 4 bits, embeddings in bf16; everything else trained in float32 under
    bf16 autocast; encoder and language model recompute their activations; two lesions per step.
    """
    wanted = [sizes] if isinstance(sizes, str) else list(sizes)
    return markdown_table([memory_of(size) for size in wanted], digits=2)


def memory_of(size: str) -> dict[str, Any]:
    """The row of one preset.

    Raises:
        ValueError: unknown size, or one whose language model has no known shape.
        ImportError: the extra `text` is not installed.
    """
    config = full_config({"size": size})
    llm = empty_llm(config["llm_name"])
    embeddings = [llm.get_input_embeddings().weight, llm.get_output_embeddings().weight]
    whole = sum({id(weight): weight.numel() for weight in embeddings}.values())
    quantised = sum(weight.numel() for weight in llm.parameters()) - whole
    generator = config["generator"]
    llm_dim, vocabulary = embeddings[0].shape[1], embeddings[0].shape[0]
    with torch.device("meta"):
        vision = build_vision(config)
        heads = [build_classifier(config, vision), build_localizer(config, vision)]
        projector = VisualProjector(vision.embed_dim, llm_dim, heads=generator["projector_heads"])
    lora = add_lora(llm, generator["lora_r"], generator["lora_alpha"])
    trained = sum(_parameters(part) for part in (vision, *heads, projector, lora) if part is not None)
    row = {
        "size": size,
        "trained, millions": trained / 1e6,
        "language model": (quantised * NF4_BYTES + whole * 2) / GB,
        "trained weights and Adam": trained * TRAINED_BYTES / GB,
        "encoder": encoder_bytes(config) / GB,
        "localizer": localizer_bytes(config) / GB,
        "projector": projector_bytes(config, llm_dim) / GB,
        "language model, activations": llm_bytes(config, vocabulary) / GB,
    }
    return row | {"sum": sum(value for key, value in row.items() if key not in ("size", "trained, millions"))}


def encoder_bytes(config: Config) -> int:
    """Activations of the encoder for one scan: what checkpointing keeps, and one block computed again."""
    with fake_tensors():
        vision = build_vision(config).train()
        image = torch.empty(1, vision.in_channels, *vision.img_size)
        kept = saved_bytes(lambda: vision(image), vision)
        if not vision.checkpointing:
            return kept
        shallow = [
            build_vision({**config, "vision": {**config["vision"], "checkpointing": False, "depth": depth}})
            for depth in (1, 2)
        ]
        one, two = (saved_bytes(lambda net=net: net(image), net.train()) for net in shallow)  # type: ignore[misc]
    return kept + two - one


def localizer_bytes(config: Config) -> int:
    """Activations of the localizer for one scan and two lesions."""
    with fake_tensors():
        vision = build_vision(config)
        # The texts are some thousand numbers of many millions; checking that there are any needs values.
        plain = {**config, "localizer": {**config["localizer"], "text_guidance": False}}
        localizer = build_localizer(plain, vision)
        assert localizer is not None
        image = torch.empty(1, vision.in_channels, *vision.img_size)
        patches = vision.grid[0] * vision.grid[1] * vision.grid[2]
        seen = {"local_features": torch.empty(1, patches, vision.embed_dim, requires_grad=True)}
        lesions = torch.arange(LESIONS_PER_STEP)
        return saved_bytes(lambda: localizer.train()(seen, image, lesions), localizer)


def projector_bytes(config: Config, llm_dim: int) -> int:
    """Activations of the projector for one scan."""
    with fake_tensors():
        vision = build_vision(config).train()
        heads = config["generator"]["projector_heads"]
        projector = VisualProjector(vision.embed_dim, llm_dim, heads=heads).train()
        seen = vision(torch.empty(1, vision.in_channels, *vision.img_size))
        return saved_bytes(lambda: projector(seen), projector)


def llm_bytes(config: Config, vocabulary: int) -> int:
    """Activations of the language model for one report: every layer's input, one layer again, the logits."""
    generator, shape = config["generator"], SHAPES[config["llm_name"]]
    tokens = generator.get("num_visual_tokens", 256) + TEXT_TOKENS
    one, two = (_llm_kept(shape, layers, generator, tokens) for layers in (1, 2))
    inputs = shape["num_hidden_layers"] * tokens * shape["hidden_size"] * 2
    return inputs + two - one + REPORT_TOKENS * vocabulary * LOGIT_BYTES


def _llm_kept(shape: Mapping[str, Any], layers: int, generator: Mapping[str, Any], tokens: int) -> int:
    """Bytes that so many layers with LoRA keep of `tokens` tokens."""
    from transformers import AutoConfig, AutoModelForCausalLM

    numbers = {**shape, "num_hidden_layers": layers}
    with torch.device("meta"):
        llm = AutoModelForCausalLM.from_config(AutoConfig.for_model(numbers.pop("model_type"), **numbers))
        llm.requires_grad_(False)
        add_lora(llm, generator["lora_r"], generator["lora_alpha"])  # in place
        words = torch.empty(1, tokens, shape["hidden_size"], dtype=torch.bfloat16, requires_grad=True)
        body: nn.Module = llm.to(torch.bfloat16).train().model
        # A mask of all pairs is taken as it is; making one would need values.
        seen = torch.ones(1, 1, tokens, tokens, dtype=torch.bool)
        return saved_bytes(lambda: body(inputs_embeds=words, attention_mask=seen, use_cache=False), body)


def _parameters(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters() if weight.requires_grad)
