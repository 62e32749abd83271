"""Parameters that the presets train, counted on models without weights."""

from __future__ import annotations

import pytest
import torch
from rect_vlm.llm import add_lora
from rect_vlm.llm_shapes import SHAPES, empty_llm
from rect_vlm.projector import VisualProjector
from rect_vlm.sizes import SIZES

# Millions: LoRA on q, v, o; projector; the language model itself as its name says.
COUNTED = {"large": (215.0, 102.0, 70.6e3), "medium": (70.8, 53.4, 27.2e3), "small": (22.0, 31.6, 8.03e3)}


@pytest.mark.parametrize("size", COUNTED)
def test_presets_train_as_many_parameters_as_published(size: str) -> None:
    numbers = SIZES[size]
    base = empty_llm(numbers["llm_name"])
    width = base.get_input_embeddings().weight.shape[1]
    assert sum(weight.numel() for weight in base.parameters()) / 1e6 == pytest.approx(
        COUNTED[size][2], rel=0.01
    )
    generator = numbers["generator"]
    with torch.device("meta"):
        lora = add_lora(base, generator["lora_r"], generator["lora_alpha"])
        projector = VisualProjector(numbers["vision"]["embed_dim"], width, heads=generator["projector_heads"])
    trained = [weight for weight in lora.parameters() if weight.requires_grad]
    assert {weight.device.type for weight in [*trained, *projector.parameters()]} == {"meta"}
    assert sum(weight.numel() for weight in trained) / 1e6 == pytest.approx(COUNTED[size][0], rel=0.01)
    read = sum(weight.numel() for weight in projector.parameters()) / 1e6
    assert read == pytest.approx(COUNTED[size][1], rel=0.01)
    assert generator["lora_alpha"] == 2 * generator["lora_r"]


def test_shapes_are_known_of_all_large_presets_and_no_other() -> None:
    assert set(SHAPES) == {SIZES[size]["llm_name"] for size in COUNTED}
    with pytest.raises(ValueError, match=r"shapes are known of .*, got 'gpt2'"):
        empty_llm("gpt2")
