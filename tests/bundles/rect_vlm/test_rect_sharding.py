"""Two processes: averaged gradients, and a language model whose weights are shared out."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from rect_llm import shake_lora, tiny_folder, tiny_generator
from rect_tiny_model import tiny_model
from rect_two_processes import run
from rect_vlm.large_llm import add_generator
from rect_vlm.records import Record
from rect_vlm.sharding import ShardedPlan, leave_out_frozen, shard_frozen
from safetensors.torch import load_file
from torch import nn


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("llm"))


@pytest.fixture(scope="module")
def out(llm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    torch.multiprocessing.spawn(run, args=(folder, llm), nprocs=2)
    return folder


@pytest.fixture(scope="module")
def ranks(out: Path) -> list[dict[str, Any]]:
    return [torch.load(out / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.slow
def test_averaged_gradients_are_those_of_the_joined_batch(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        alone, both = rank["gradients"]["alone"], rank["gradients"]["both"]
        reached = {key for key, grad in alone.items() if grad is not None}
        assert reached == {key for key, grad in both.items() if grad is not None}
        assert {key.split(".")[0] for key in reached} == {"vision", "classifier", "localizer", "generator"}
        for key in reached:
            torch.testing.assert_close(both[key], alone[key], atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_shares_train_and_write_what_the_whole_model_does(ranks: list[dict[str, Any]], out: Path) -> None:
    for rank in ranks:
        whole, shares = rank["whole"], rank["shares"]
        assert shares["losses"] == pytest.approx(whole["losses"], abs=1e-5)
        assert shares["grpo"] == pytest.approx(whole["grpo"], abs=1e-4)
        assert torch.equal(shares["tokens"], whole["tokens"])
        assert shares["losses"][-1] < shares["losses"][0]
    # The processes wrote reports of different lengths, and neither waited for ever.
    assert ranks[0]["shares"]["tokens"].shape[1] < ranks[1]["shares"]["tokens"].shape[1]
    saved = {name: load_file(out / name / "adapter_model.safetensors") for name in ("whole", "shares")}
    assert set(saved["shares"]) == set(saved["whole"])
    for key, value in saved["whole"].items():
        torch.testing.assert_close(saved["shares"][key], value, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["whole", "shares"])
def test_both_processes_hold_the_same_lora_after_phases_1_3_and_3(
    name: str, ranks: list[dict[str, Any]], out: Path
) -> None:
    first, second = (rank[name]["lora"] for rank in ranks)
    assert all(torch.equal(first[key], second[key]) for key in first)
    saved = load_file(out / name / "adapter_model.safetensors")
    assert all(torch.equal(saved[key], first[key]) for key in first)


@pytest.mark.slow
def test_a_process_keeps_half_of_the_frozen_layers_and_all_of_what_is_trained(
    ranks: list[dict[str, Any]], llm: Path
) -> None:
    layers = tiny_generator(llm).llm.get_base_model().base_model.layers
    frozen = sum(weight.numel() for weight in layers.parameters() if not weight.requires_grad)
    for rank in ranks:
        assert rank["of"] == frozen
        assert rank["held"] == pytest.approx(frozen / 2, rel=0.01)
        assert rank["trained in shares"] == 0


def test_what_is_frozen_is_left_out_of_the_averaging(llm: Path) -> None:
    generator = tiny_generator(llm)
    leave_out_frozen(generator)
    left = set(generator._ddp_params_and_buffers_to_ignore)
    assert left == {name for name, weight in generator.named_parameters() if not weight.requires_grad}
    assert "llm.base_model.model.model.embed_tokens.weight" in left


def test_shares_of_one_process_or_without_layers_are_refused(llm: Path) -> None:
    model = tiny_model(llm)
    assert model.plan is not None
    model.plan = ShardedPlan(**vars(model.plan))
    with pytest.raises(ValueError, match="needs several processes, got one: start it with torchrun"):
        model.load_generator()
    generator = tiny_generator(llm)
    shake_lora(generator)
    generator.llm.get_base_model()._no_split_modules = None
    with pytest.raises(ValueError, match="names its layers, LlamaForCausalLM does not"):
        shard_frozen(generator.llm, torch.device("cpu"))


def test_shares_need_a_report_of_every_scan(llm: Path) -> None:
    model = tiny_model(llm)
    rows: list[Record] = [{"id": name, "report": text} for name, text in (("a_1", "Normal."), ("b_1", " "))]  # type: ignore[typeddict-item]
    with pytest.raises(ValueError, match="report of every training scan, 1 have none: b_1"):
        add_generator(model, {"train": rows}, "unused", shard=True)


def test_four_bits_reach_the_plan(llm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(llm)
    seen = []
    monkeypatch.setattr(type(model), "load_generator", lambda self: seen.append(self.plan))
    add_generator(model, {"train": []}, "unused", load_in_4bit=True)
    add_generator(model, {"train": [{"id": "a", "report": "b"}]}, "unused", shard=True)  # type: ignore[typeddict-item]
    assert [(type(plan).__name__, plan.load_in_4bit) for plan in seen] == [
        ("GeneratorPlan", True),
        ("ShardedPlan", False),
    ]
    assert {dataclasses.replace(plan, load_in_4bit=False).llm_name for plan in seen} == {str(llm)}


def test_modules_without_anything_frozen_stay_as_they_are() -> None:
    net = nn.Linear(2, 2)
    leave_out_frozen(net)
    assert not net._ddp_params_and_buffers_to_ignore
