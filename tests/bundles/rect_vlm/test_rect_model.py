"""The model as parts: built from numbers, weights by name, evidence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from rect_llm import REPORTS, tiny_folder
from rect_tiny_model import tiny_config, tiny_model, trained_model, volumes
from rect_vlm.model import build_model
from rect_vlm.model_build import full_config
from rect_vlm.sizes import SIZES


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("llm"))


def test_a_size_is_the_base_that_a_config_changes() -> None:
    full = full_config({"size": "cpu", "vision": {"slice_bias": False}, "generator": None})
    assert full["vision"] == {**SIZES["cpu"]["vision"], "slice_bias": False}
    assert "slice_bias" not in SIZES["cpu"]["vision"]
    assert full["generator"] is None
    assert full["geometry"]["img_size"] == (32, 96, 96)
    assert full_config(json.loads(json.dumps(full))) == full


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": "huge"}, "size must be one of"),
        ({"geometry": "thorax"}, "geometry must be one of"),
        ({"visoin": {}}, "got 'visoin'"),
        ({"vision": {"width": 3}}, "'vision' of the config does not fit ThreeDVisionEncoder.*width"),
        ({"localizer": {"grid": [1, 1, 1]}}, "grid.*follow from other entries"),
        ({"classifier": 3}, "'classifier' of the config must hold its own arguments"),
    ],
)
def test_wrong_numbers_are_named(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_model({"size": "cpu", **change})


def test_only_a_full_config_needs_no_size() -> None:
    incomplete = tiny_config()
    del incomplete["localizer"], incomplete["llm_name"]
    with pytest.raises(ValueError, match=r"lacks \['localizer', 'llm_name'\]"):
        build_model(incomplete)


def test_what_may_learn_is_listed_by_part_and_the_language_model_is_not(llm: Path) -> None:
    model = tiny_model(llm)
    assert list(model.modules_by_name) == ["vision", "classifier", "localizer"]
    assert not model.has_part("lora")
    generator = model.load_generator()
    listed = {id(p) for parts in model.modules_by_name.values() for p in parts}
    frozen = {name for name, p in model.named_parameters() if id(p) not in listed}
    assert frozen
    assert all(name.startswith("generator.llm.") and "lora_" not in name for name in frozen)
    generator.set_reference()
    assert {id(p) for parts in model.modules_by_name.values() for p in parts} == listed


def test_three_checkpoints_become_one_model_key_by_key(llm: Path) -> None:
    first, other = trained_model(llm), tiny_model(llm)
    other.load_generator()
    with torch.no_grad():
        for tensor in other.weights_state().values():
            tensor.zero_()
    groups = (("vision", "classifier"), ("localizer",), ("projector", "lora"))
    states = [{k: v.clone() for k, v in first.weights_state(parts).items()} for parts in groups]
    keys = [key for state in states for key in state]
    assert sorted(keys) == sorted(first.weights_state())
    assert len(set(keys)) == len(keys)
    for parts, state in zip(groups, states, strict=True):
        other.load_weights(state, parts)
    assert all(
        torch.equal(tensor, first.weights_state()[key]) for key, tensor in other.weights_state().items()
    )


def test_weights_that_do_not_fit_are_named_and_nothing_is_loaded() -> None:
    model = tiny_model()
    state = {key: torch.zeros_like(tensor) for key, tensor in model.weights_state(["classifier"]).items()}
    del state["classifier.bias"]
    state |= {"classifier.extra": torch.zeros(1), "classifier.soft_prompts": torch.zeros(2)}
    before = {key: tensor.clone() for key, tensor in model.weights_state().items()}
    with pytest.raises(
        ValueError, match=r"1 missing: classifier\.bias; 1 unknown: classifier\.extra"
    ) as error:
        model.load_weights(state, ["classifier"], "phase_1_1.pt")
    assert "phase_1_1.pt" in str(error.value)
    assert "classifier.soft_prompts (2,) for (18, 8)" in str(error.value)
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.weights_state().items())


def test_weights_of_another_part_are_unknown() -> None:
    model = tiny_model()
    with pytest.raises(ValueError, match="unknown: classifier"):
        model.load_weights(model.weights_state(["vision", "classifier"]), ["vision"])
    with pytest.raises(ValueError, match=r"holds no \['lora'\]"):
        model.weights_state(["lora"])


def test_the_deployed_network_shares_the_weights() -> None:
    model, image = tiny_model(), volumes()
    with torch.no_grad():
        logits = model.localization_net(image)
        assert torch.allclose(logits.sigmoid(), model.masks(model.encode(image), image))
    assert next(model.localization_net.parameters()) is next(model.vision.parameters())


def test_texts_of_another_width_are_refused(cache: Path) -> None:
    with pytest.raises(ValueError, match=r"text encoder .* does not fit the model: cls_text must have shape"):
        tiny_model().read_texts("tiny")


def test_texts_are_read_into_both_heads(cache: Path) -> None:
    width = {"text_dim": 384}
    config = tiny_config(llm="tiny")
    model = build_model({**config, **{part: config[part] | width for part in ("classifier", "localizer")}})
    model.read_texts()
    assert model.classifier.cls_text.std() > 0.5
    assert model.localizer.loc_mask.sum(1).min() > 1


def test_reports_are_learned_through_the_parts(llm: Path) -> None:
    model = tiny_model(llm).train()
    vision = model.encode(volumes())
    loss = model.load_generator().loss(vision, model.told(vision, volumes())[1], REPORTS)["gen"]
    loss.backward()
    for part in ("vision", "projector", "lora"):
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.modules_by_name[part]), part


def test_evidence_in_training_is_what_prediction_would_say(llm: Path) -> None:
    model, image = tiny_model(llm), volumes()
    with torch.no_grad():
        vision = model.encode(image)
    said = model.told(vision, image)[1]
    assert model.train().told(vision, image)[1] == said
    assert model.localizer.training
    assert all(line.startswith("[FINDING]") for lines in said for line in lines)
