"""Loading a language model: what a folder must hold, LoRA targets, 4-bit weights, the tiny and real one."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rect_llm import LINES, REPORTS, tiny_folder, tiny_generator, tiny_vision
from rect_vlm.findings import FINDINGS
from rect_vlm.llm import add_lora, load_llm
from rect_vlm.tiny_llm import made_up_reports, tiny_llm


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("llm"))


def _bits(packed: torch.Tensor) -> torch.Tensor:
    return packed.detach().clone().view(torch.uint8)  # two of them make a bf16, which may be NaN


def test_a_loaded_model_is_frozen_and_has_no_sampling_habits(folder: Path) -> None:
    (model, tokenizer) = load_llm(folder)
    assert not model.training
    assert not any(weight.requires_grad for weight in model.parameters())
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert model.generation_config.temperature is None
    half, _ = load_llm(str(folder), dtype="bfloat16", checkpointing=True)
    assert {weight.dtype for weight in half.parameters()} == {torch.bfloat16}
    assert any(getattr(part, "gradient_checkpointing", False) for part in half.modules())


def test_a_folder_without_tokenizer_is_named(folder: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    with pytest.raises(ValueError, match=rf"must hold config.json, got {bare} without"):
        load_llm(bare)
    for name in ("config.json", "model.safetensors"):
        shutil.copy(folder / name, bare)
    with pytest.raises(ValueError, match=rf"must hold its tokenizer, one of tokenizer.json.*got {bare}"):
        load_llm(bare)
    with pytest.raises(ValueError, match=r"no folder \./nowhere/model"):
        load_llm("./nowhere/model")


def test_a_tokenizer_without_end_is_refused(folder: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    endless = shutil.copytree(folder, tmp_path / "endless")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.eos_token = None
    tokenizer.save_pretrained(endless)
    with pytest.raises(ValueError, match="endless must name an end-of-text token"):
        load_llm(endless)


@pytest.mark.parametrize(
    ("targets", "got"), [(["q_proj", "query"], r"\['query'\]"), ("c_attn", r"\['c_attn'\]"), ([], "none")]
)
def test_lora_targets_that_do_not_exist_are_answered_with_those_that_do(
    folder: Path, targets: Any, got: str
) -> None:
    model, _ = load_llm(folder)
    known = "'down_proj', 'gate_proj', 'k_proj', 'o_proj', 'q_proj', 'up_proj', 'v_proj'"
    with pytest.raises(ValueError, match=rf"LlamaForCausalLM, which are \[{known}\].*got {got}"):
        add_lora(model, 4, 8, targets)
    with pytest.raises(ValueError, match="rank of LoRA must be >= 1, got r=0"):
        add_lora(model, 0, 8)


def test_lora_on_all_linear_layers_alone_can_be_trained(folder: Path) -> None:
    model = add_lora(load_llm(folder)[0], 4, 8, "all-linear")
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert len(trained) == 3 * 7 * 2  # layers, linear ones in each, A and B
    assert all("lora_" in name for name in trained)


def _without(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == package else find(name, *rest)
    )


def test_what_is_not_installed_is_named(
    folder: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _without(monkeypatch, "bitsandbytes")
    with pytest.raises(ImportError, match=r"pip install 'medbundles\[text,4bit\]'"):
        load_llm(folder, load_in_4bit=True)
    monkeypatch.setattr("rect_vlm.smollm2.fetch", lambda name: tmp_path / name)
    _without(monkeypatch, "gguf")
    with pytest.raises(ImportError, match="pip install gguf"):
        load_llm("smollm2")
    shutil.copytree(folder, cache / "rect_vlm/smollm2")  # unpacked before, it is not needed any more
    assert type(load_llm("smollm2")[0]).__name__ == "LlamaForCausalLM"


def test_a_four_bit_model_learns_and_writes(folder: Path) -> None:
    four_bit = pytest.importorskip("bitsandbytes").nn.Linear4bit
    generator = tiny_generator(folder, load_in_4bit=True, device="cpu")
    packed = [part for part in generator.llm.modules() if isinstance(part, four_bit)]
    assert len(packed) == 3 * 7
    before = [_bits(part.weight) for part in packed]
    learns = [weight for weight in generator.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(learns, lr=1e-2)
    vision, losses = tiny_vision(), []
    for _ in range(5):
        optimizer.zero_grad()
        loss = generator.loss(vision, LINES, REPORTS)["gen"]
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert not any(part.weight.requires_grad for part in packed)
    assert all(torch.equal(_bits(part.weight), value) for part, value in zip(packed, before, strict=True))
    assert len(generator.generate(vision, LINES, max_new_tokens=4)) == 2


def test_the_tiny_model_is_made_once_and_the_same_again(folder: Path, tmp_path: Path) -> None:
    assert tiny_folder(folder.parent) == folder
    again = tiny_folder(tmp_path)
    assert (again / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    assert (again / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()
    other = tiny_llm(REPORTS, tmp_path, seed=1, steps=1, progress=False)
    assert other.parent == again.parent
    assert other != again
    assert {path.name for path in tmp_path.iterdir()} == {again.name, other.name}


def test_the_tiny_model_writes_any_text_and_learns_its_own(folder: Path, tmp_path: Path) -> None:
    taught = tiny_llm(REPORTS, tmp_path, steps=6, progress=False)
    losses = []
    for place in (folder, taught):
        model, tokenizer = load_llm(place)
        ids = torch.tensor([tokenizer.encode(REPORTS[0])])
        losses.append(model(input_ids=ids, labels=ids).loss.item())
        assert tokenizer.decode(tokenizer.encode("Größe 5 µm\n\t≥ 3 – ok")) == "Größe 5 µm\n\t≥ 3 – ok"
    assert losses[1] < losses[0] - 0.5
    with pytest.raises(ValueError, match="needs texts and steps >= 1, got 0 texts"):
        tiny_llm([" "], tmp_path)


def test_made_up_reports_tell_of_every_finding() -> None:
    reports = made_up_reports(8)
    assert len(set(reports)) == 8
    for report in reports:
        assert all(finding in report for finding in FINDINGS)
        assert report.startswith("FINDINGS:\n")
        assert "\n\nIMPRESSION:\n" in report


@pytest.mark.slow
def test_lora_on_the_real_model_learns_and_reloads(sample: Callable[[str], Path], tmp_path: Path) -> None:
    sample("smollm2")
    numbers = {"lora_r": 8, "lora_alpha": 16, "lora_dropout": 0.0}
    generator = tiny_generator(Path("smollm2"), **numbers)
    assert sum(weight.numel() for weight in generator.llm.base_model.parameters()) > 134e6
    vision = tiny_vision()
    learns = [weight for weight in generator.parameters() if weight.requires_grad]
    optimizer, losses = torch.optim.AdamW(learns, lr=3e-3), []
    for _ in range(8):
        optimizer.zero_grad()
        loss = generator.loss(vision, LINES, REPORTS)["gen"]
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]
    written = generator.generate(vision, LINES, max_new_tokens=40, do_sample=False)
    assert any(written)

    generator.save_adapter(tmp_path / "adapter")
    other = tiny_generator(Path("smollm2"), **numbers)
    other.projector.load_state_dict(generator.projector.state_dict())
    assert other.generate(vision, LINES, max_new_tokens=40, do_sample=False) != written
    other.load_adapter(tmp_path / "adapter")
    assert other.generate(vision, LINES, max_new_tokens=40, do_sample=False) == written
