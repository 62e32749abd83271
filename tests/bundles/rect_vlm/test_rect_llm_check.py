"""The language model is checked before anything is trained, and none of its weights is read for that."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
from rect_llm import tiny_folder
from rect_tiny_model import GENERATOR, tiny_model
from rect_training_runs import make_cohort, numbers, train
from rect_vlm.cohort import prepare
from rect_vlm.llm import TOKENIZER_FILES
from rect_vlm.model import ReCTVLM


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("llm"))


def without(folder: Path, copy: Path, *names: str) -> Path:
    """A copy of a language model that lacks some files."""
    return shutil.copytree(folder, copy, ignore=lambda *_: names)


def model_with(llm: str | Path, **generator: Any) -> ReCTVLM:
    return tiny_model(llm, generator={**GENERATOR, **generator})


def prepared(model: ReCTVLM, out: Path, monkeypatch: pytest.MonkeyPatch, *tasks: str) -> bool:
    """Run `prepare` without scans; whether it came to its last step, the texts."""
    done: list[str] = []
    monkeypatch.setattr(model, "read_texts", lambda: done.append("texts"))
    prepare(str(out / "none"), {}, [], [str(out)], model, tasks, check_files=False, prior=False)
    return bool(done)


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        (TOKENIZER_FILES, r"must hold its tokenizer, one of tokenizer\.json.*, got .*/copy without"),
        (("model.safetensors",), r"must hold its weights, one of model\.safetensors.*, got .*/copy without"),
        (("config.json",), r"must hold config\.json, got .*/copy without"),
    ],
)
def test_a_folder_that_lacks_something_is_named(
    missing: tuple[str, ...], message: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_with(without(folder, tmp_path / "copy", *missing))
    with pytest.raises(ValueError, match=message):
        prepared(model, tmp_path, monkeypatch, "cls", "gen")
    assert prepared(model, tmp_path, monkeypatch, "cls", "loc")  # which write nothing


@pytest.mark.parametrize("llm", ["folder", "tiny"])
@pytest.mark.parametrize("task", ["gen", "reward"])
def test_targets_that_do_not_exist_are_answered_with_those_that_do(
    llm: str, task: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = folder if llm == "folder" else llm
    with pytest.raises(ValueError, match=r"LlamaForCausalLM, which are \['down_proj'.*got \['c_attn'\]"):
        prepared(model_with(name, lora_targets=["q_proj", "c_attn"]), tmp_path, monkeypatch, task)
    assert prepared(model_with(name, lora_targets="all-linear"), tmp_path, monkeypatch, task)


def test_no_weights_are_read(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "model.safetensors").write_text("no weights")
    model = model_with(copy)
    assert prepared(model, tmp_path, monkeypatch, "gen")
    assert model.generator is None


def test_a_model_without_generator_cannot_be_trained_to_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="need entry 'generator' of the model's config, got None"):
        prepared(tiny_model(generator=None), tmp_path, monkeypatch, "gen")


def test_of_a_hub_model_configuration_and_tokenizer_are_enough(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(store))
    for name, missing in (("whole", ()), ("bare", TOKENIZER_FILES)):
        place = store / f"models--someone--{name}"
        without(folder, place / "snapshots" / "0", "model.safetensors", *missing)
        (place / "refs").mkdir()
        (place / "refs" / "main").write_text("0")

    def hub(name: str, **generator: Any) -> ReCTVLM:
        model = model_with(f"someone/{name}", **generator)
        assert model.plan is not None
        model.plan = dataclasses.replace(model.plan, local_files_only=True)
        return model

    assert prepared(hub("whole"), tmp_path, monkeypatch, "gen")
    with pytest.raises(ValueError, match=r"got \['c_attn'\]"):
        prepared(hub("whole", lora_targets=["c_attn"]), tmp_path, monkeypatch, "gen")
    with pytest.raises(ValueError, match="the tokenizer of someone/bare cannot be loaded: "):
        prepared(hub("bare"), tmp_path, monkeypatch, "gen")
    with pytest.raises(FileNotFoundError, match=r"a folder or a hub id .*, got someone/none: "):
        prepared(hub("none"), tmp_path, monkeypatch, "gen")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_a_damaged_file_is_told_with_its_folder(
    name: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / name).write_text("{")
    with pytest.raises((ValueError, OSError), match=str(copy)):
        prepared(model_with(copy), tmp_path, monkeypatch, "gen")


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("fault", ["tokenizer", "targets"])
def test_a_curriculum_fails_before_its_first_phase(fault: str, folder: Path, tmp_path: Path) -> None:
    cohort, config = make_cohort(tmp_path), numbers(folder)
    if fault == "tokenizer":
        config["llm_name"] = str(without(folder, tmp_path / "copy", *TOKENIZER_FILES))
    else:
        config["generator"] = {**config["generator"], "lora_targets": ["c_attn"]}
    with pytest.raises(ValueError, match=r"must hold its tokenizer|LoRA targets must be linear layers"):
        train(cohort, tmp_path, folder, "1.1", "1.2", "1.3", model_config=config)
    assert not list(tmp_path.rglob("phase_*"))
    assert not list(cohort.rglob("*.nii.gz"))
