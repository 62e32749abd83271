"""A saved model: what comes back, and which folders are refused."""

from __future__ import annotations

import json
import os
import shutil
import stat
from pathlib import Path

import pytest
import torch
from rect_llm import tiny_folder
from rect_tiny_model import tiny_model, trained_model, volumes
from rect_vlm import saved_llm
from rect_vlm.model import ReCTVLM


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("llm"))


@pytest.fixture(scope="module")
def saved(llm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "model"
    trained_model(llm).save_pretrained(folder)
    return folder


def test_a_loaded_model_says_the_same(saved: Path, llm: Path) -> None:
    image = volumes()
    models = [trained_model(llm), ReCTVLM.from_pretrained(saved)]
    for model in models:
        model.load_generator()
    said = []
    for model in models:
        torch.manual_seed(0)
        said.append(model.predict(image, report_generation_config={"max_new_tokens": 8}))
    first, again = said
    assert torch.equal(first["classification"]["probabilities"], again["classification"]["probabilities"])
    assert all(
        torch.equal(mask, again["localization"]["masks"][lesion])
        for lesion, mask in first["localization"]["masks"].items()
    )
    assert first["reports"] == again["reports"]
    assert any(first["reports"])


def test_running_statistics_of_the_scans_are_saved(tmp_path: Path) -> None:
    model, image = tiny_model(), volumes(4)
    before = model.classify(image)["probabilities"]
    with torch.no_grad():
        model.classifier.train()(model.encode(image))
    after = model.eval().classify(image)["probabilities"]
    assert not torch.equal(after, before)
    state = {key: tensor.clone() for key, tensor in model.weights_state(["classifier"]).items()}
    assert {f"classifier.standard.running_{name}" for name in ("mean", "var")} < set(state)
    other = tiny_model()
    other.load_weights(state, ["classifier"])
    assert torch.equal(other.classify(image)["probabilities"], after)
    model.save_pretrained(tmp_path / "model")
    loaded = ReCTVLM.from_pretrained(tmp_path / "model", components=("classifier",))
    assert torch.equal(loaded.classify(image)["probabilities"], after)


def test_a_model_saved_again_without_its_language_model_is_whole(saved: Path, tmp_path: Path) -> None:
    loaded = ReCTVLM.from_pretrained(saved)
    loaded.save_pretrained(tmp_path / "copy")
    loaded.save_pretrained(tmp_path / "copy")  # and over itself
    assert loaded.generator is None
    again = ReCTVLM.from_pretrained(tmp_path / "copy")
    both = [model.load_generator().trainable_state() for model in (loaded, again)]
    assert both[0].keys() == both[1].keys()
    assert all(torch.equal(tensor, both[1][key]) for key, tensor in both[0].items())


def test_a_generator_that_was_never_made_is_not_saved(tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path / "model")
    loaded = ReCTVLM.from_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match="this model has no generator"):
        loaded.generate_report(volumes(1))
    with pytest.raises(ValueError, match="was saved without generator"):
        ReCTVLM.from_pretrained(tmp_path / "model", components=("vision", "generator"))


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("labels.json", "findings", ["Pneumothorax"]),
        ("preprocessing.json", "hu_range", [-160.0, 240.0]),
        ("config.json", "format", 99),
    ],
)
def test_a_folder_that_means_something_else_is_refused(
    name: str, key: str, value: object, tmp_path: Path
) -> None:
    tiny_model().save_pretrained(tmp_path / "model")
    file = tmp_path / "model" / name
    file.write_text(json.dumps(json.loads(file.read_text()) | {key: value}))
    with pytest.raises(ValueError, match=f"{name}.*{key}"):
        ReCTVLM.from_pretrained(tmp_path / "model")


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"folder with config\.json"):
        ReCTVLM.from_pretrained(tmp_path)


def test_a_tiny_language_model_moves_with_the_folder(tmp_path: Path) -> None:
    llm = tiny_folder(tmp_path / "here")
    trained_model(llm).save_pretrained(tmp_path / "here" / "model")
    shutil.move(tmp_path / "here" / "model", tmp_path / "there")
    shutil.rmtree(tmp_path / "here")
    moved = ReCTVLM.from_pretrained(tmp_path / "there")
    assert moved.load_generator().projector.num_tokens == 4
    moved.save_pretrained(tmp_path / "there")  # over itself
    moved.save_pretrained(tmp_path / "copy")
    shutil.rmtree(tmp_path / "there")
    again = ReCTVLM.from_pretrained(tmp_path / "copy").load_generator()
    assert again.tokenizer.get_vocab() == moved.load_generator().tokenizer.get_vocab()


def test_a_larger_language_model_beside_the_folder_is_named_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saved_llm, "MOST_BYTES", 1000)
    trained_model(tiny_folder(tmp_path / "here")).save_pretrained(tmp_path / "here" / "model")
    assert not (tmp_path / "here" / "model" / "language_model").exists()
    shutil.move(tmp_path / "here", tmp_path / "there")
    moved = ReCTVLM.from_pretrained(tmp_path / "there" / "model")
    assert moved.load_generator().projector.num_tokens == 4
    moved.save_pretrained(tmp_path / "elsewhere" / "model")
    config = json.loads((tmp_path / "elsewhere" / "model" / "config.json").read_text())
    assert Path(config["llm_name"]).is_absolute()


def test_every_file_of_a_saved_model_respects_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o022)
    try:
        trained_model(tiny_folder(tmp_path)).save_pretrained(tmp_path / "model")
    finally:
        os.umask(old)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"model.safetensors", "adapter_model.safetensors", "config.json"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o644}
