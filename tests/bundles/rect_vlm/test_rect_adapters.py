"""LoRA of the report generator: saved, loaded, kept as a reference, and free of dropout where asked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from rect_llm import LINES, REPORTS, shake_lora, tiny_folder, tiny_generator, tiny_vision
from rect_vlm.adapters import REFERENCE, adapter_in_use
from rect_vlm.generator import ReportGenerator
from rect_vlm.model_weights import load_tensors


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("llm"))


@pytest.fixture
def generator(folder: Path) -> ReportGenerator:
    generator = tiny_generator(folder)
    shake_lora(generator)
    return generator


def _texts(generator: ReportGenerator) -> list[str]:
    torch.manual_seed(3)
    return generator.generate(tiny_vision(), LINES, max_new_tokens=16, temperature=1.0, top_p=1.0)


def _scores(generator: ReportGenerator, adapter: str = "default") -> torch.Tensor:
    torch.manual_seed(3)
    vision, tokens = tiny_vision(), torch.randint(3, 50, (2, 6))
    return generator.log_probs(vision, LINES, tokens, torch.ones_like(tokens), adapter)


def test_a_reloaded_adapter_writes_the_same(folder: Path, generator: ReportGenerator, tmp_path: Path) -> None:
    generator.save_adapter(tmp_path)
    other = tiny_generator(folder)
    load_tensors(other.projector.state_dict(), generator.projector.state_dict(), "the projector")
    assert _texts(other) != _texts(generator)
    other.load_adapter(tmp_path)
    assert _texts(other) == _texts(generator)
    torch.testing.assert_close(_scores(other), _scores(generator), rtol=0, atol=0)


def test_the_state_is_live_and_holds_nothing_of_the_language_model(generator: ReportGenerator) -> None:
    generator.set_reference()
    state = generator.trainable_state()
    lora = generator.parameters_by_part()["lora"]
    assert {key.split(".")[0] for key in state} == {"projector", "lora"}
    assert sum("lora." in key for key in state) == len(lora)
    assert all("lora_" in key for key in state if key.startswith("lora."))
    with torch.no_grad():
        lora[0].fill_(7.0)
    assert any(bool((value == 7.0).all()) for key, value in state.items() if key.startswith("lora."))


def test_a_foreign_adapter_is_refused(folder: Path, generator: ReportGenerator, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must hold adapter_config\.json and adapter_model\.safetensors"):
        generator.load_adapter(tmp_path)
    before = _scores(generator)
    tiny_generator(folder, lora_r=2, lora_alpha=8).save_adapter(tmp_path / "rank")
    with pytest.raises(ValueError, match=r"adapter_config.json: r must be 4 as in this model, got 2"):
        generator.load_adapter(tmp_path / "rank")
    tiny_generator(folder, lora_targets=["q_proj"]).save_adapter(tmp_path / "fewer")
    with pytest.raises(ValueError, match=r"adapter_model.safetensors does not fit the model; 12 missing"):
        generator.load_adapter(tmp_path / "fewer")
    torch.testing.assert_close(_scores(generator), before, rtol=0, atol=0)
    saved = json.loads((tmp_path / "fewer/adapter_config.json").read_text())
    assert saved["target_modules"] == ["q_proj"]


def test_the_reference_is_the_adapter_of_then_and_never_learns(generator: ReportGenerator) -> None:
    base = {n: w.detach().clone() for n, w in generator.llm.named_parameters() if "lora_" not in n}
    generator.set_reference()
    then = _scores(generator)
    torch.testing.assert_close(_scores(generator, REFERENCE), then, rtol=0, atol=0)
    kept = {n: w.detach().clone() for n, w in generator.llm.named_parameters() if f".{REFERENCE}." in n}
    learns = {n: w.requires_grad for n, w in generator.llm.named_parameters() if "lora_" in n}
    assert all(flag == (f".{REFERENCE}." not in name) for name, flag in learns.items())

    optimizer = torch.optim.SGD([w for w in generator.parameters() if w.requires_grad], lr=1.0)
    generator.loss(tiny_vision(), LINES, REPORTS)["gen"].backward()
    optimizer.step()
    with torch.no_grad():
        assert not torch.allclose(_scores(generator), then, atol=1e-4)
    named = dict(generator.llm.named_parameters())
    assert all(torch.equal(named[name], value) for name, value in (base | kept).items())
    flags = {n: w.requires_grad for n, w in named.items() if "lora_" in n}
    assert flags == learns

    generator.set_reference()  # again: the one of now
    torch.testing.assert_close(_scores(generator, REFERENCE), _scores(generator), rtol=0, atol=0)


def test_a_frozen_adapter_stays_frozen_after_the_reference_spoke(generator: ReportGenerator) -> None:
    generator.set_reference()
    generator.requires_grad_(False)
    with adapter_in_use(generator.llm, REFERENCE):
        assert not any(weight.requires_grad for weight in generator.llm.parameters())
    assert not any(weight.requires_grad for weight in generator.llm.parameters())
    assert generator.llm.active_adapter == "default"
    with pytest.raises(ValueError, match="adapter must be one of default, reference"):
        _scores(generator, "other")


def test_no_dropout_in_scores_and_reports_but_in_training(generator: ReportGenerator) -> None:
    generator.train()
    generator.llm.base_model.model.lm_head.eval()
    modes = [part.training for part in generator.modules()]
    vision = tiny_vision()
    torch.testing.assert_close(_scores(generator), _scores(generator), rtol=0, atol=0)
    assert _texts(generator) == _texts(generator)
    assert modes == [part.training for part in generator.modules()]
    trained = {generator.loss(vision, LINES, REPORTS)["gen"].item() for _ in range(3)}
    assert len(trained) == 3


def test_recomputed_activations_give_the_same_scores_and_gradients(
    folder: Path, generator: ReportGenerator
) -> None:
    saving = tiny_generator(folder, checkpointing=True)
    load_tensors(saving.trainable_state(), generator.trainable_state(), "the other")
    layers = [part for part in saving.modules() if getattr(part, "gradient_checkpointing", False)]
    assert layers
    grads = []
    for each in (generator.eval(), saving.eval()):
        for part in each.modules():  # as GRPO does: dropout off, recomputing on
            part.training = bool(getattr(part, "gradient_checkpointing", False))
        _scores(each).sum().backward()
        grads.append([weight.grad for part in each.parameters_by_part().values() for weight in part])
    assert all(part.training for part in layers)
    for plain, recomputed in zip(*grads, strict=True):
        torch.testing.assert_close(plain, recomputed)
