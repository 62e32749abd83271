"""The contract of a bundle, held by every bundle that is discovered, and which bundles that are."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import medbundles
import pytest
import torch
from medbundles import contract
from medbundles.contract.network import tensor_shape
from medbundles.scaffold import scaffold
from monai.bundle import ConfigWorkflow
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
BUNDLES = sorted(medbundles.discover())
# Where training gives the network more than the `image` of the metadata: the channels of that image.
TRAINING_CHANNELS = {"react_kd": 3}
# Parts that serve losses and not the output; tests of the bundle's own show that each gets a gradient.
LOSSES_REACH_MORE = {"rect_vlm": "test_rect_encoder.py, test_rect_localizer.py"}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test here starts in an empty folder outside the repository, with an empty cache."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("MEDBUNDLES_CACHE", str(tmp_path / "cache"))
    return folder


def loaded(name: str) -> ConfigWorkflow:
    workflow = medbundles.load(name, "inference")
    workflow.initialize()
    return workflow


def image(name: str, channels: int | None = None) -> Tensor:
    """A random batch of two of what the metadata call `image`."""
    entry = medbundles.get(name).metadata["network_data_format"]["inputs"]["image"]
    declared, *grid = tensor_shape(entry)
    return torch.randn(2, channels or declared, *grid)


def test_the_discovered_bundles_are_the_folders_of_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MEDBUNDLES_PATH", raising=False)
    folders = {file.parents[1].name: file.parents[1] for file in ROOT.glob("bundles/*/configs/metadata.json")}
    found = medbundles.discover()
    assert {name: info.root for name, info in found.items()} == folders
    assert set(found) == {"react_kd", "kif_mrg", "rect_vlm"}
    assert not [info.error for info in found.values() if info.error]


@pytest.mark.parametrize("name", BUNDLES)
def test_the_whole_contract_holds(name: str, elsewhere: Path) -> None:
    assert contract.verify(medbundles.get(name)) == []
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize("name", BUNDLES)
def test_a_checkpoint_brings_back_the_network_exactly(name: str, tmp_path: Path) -> None:
    saved, fresh = (loaded(name).network_def.eval() for _ in range(2))
    assert saved is not fresh
    with torch.no_grad():
        for parameter in saved.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    torch.save(saved.state_dict(), tmp_path / "model.pt")
    x = image(name)
    with torch.inference_mode():
        assert not torch.equal(saved(x), fresh(x))
        fresh.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
        assert torch.equal(saved(x), fresh(x))
    assert all(torch.equal(value, fresh.state_dict()[key]) for key, value in saved.state_dict().items())


@pytest.mark.parametrize("name", [name for name in BUNDLES if name not in LOSSES_REACH_MORE])
def test_every_trainable_parameter_gets_a_gradient_and_no_frozen_one(name: str) -> None:
    workflow = medbundles.load(name, "training")
    network = workflow.parser.get_parsed_content("network_def").train()
    output = network(image(name, TRAINING_CHANNELS.get(name)))
    (output * torch.randn_like(output)).sum().backward()
    trainable = {key: p.grad for key, p in network.named_parameters() if p.requires_grad}
    assert trainable
    assert [key for key, grad in trainable.items() if grad is None or not bool(grad.any())] == []
    assert all(bool(grad.isfinite().all()) for grad in trainable.values() if grad is not None)
    assert all(p.grad is None for p in network.parameters() if not p.requires_grad)


def test_bundles_in_one_process_keep_their_own_networks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scaffold("contract_third", tmp_path / "plugins")
    monkeypatch.setenv("MEDBUNDLES_PATH", str(tmp_path / "plugins"))
    answers = {
        "react_kd": (2, 3),
        "kif_mrg": (2, 4, 18),
        "rect_vlm": (2, 5, 32, 96, 96),
        "contract_third": None,
    }
    networks, again = ({name: loaded(name).network_def.eval() for name in answers} for _ in range(2))
    for name, shape in answers.items():
        network = networks[name]
        assert type(network).__module__.split(".")[0] == name
        assert type(network) is type(again[name])
        x = image(name)
        with torch.inference_mode():
            assert network(x).shape == (shape or (2, 2, *x.shape[2:]))
    keys = [frozenset(network.state_dict()) for network in networks.values()]
    assert len(set(keys)) == len(keys)


def test_two_trainings_in_one_process_keep_their_own_settings() -> None:
    """Both are put together side by side, each of its own parts and by its own numbers."""
    names = ("react_kd", "kif_mrg", "rect_vlm")
    parsers = {name: medbundles.load(name, "training").parser for name in names}
    for name in (*names, *names):
        parsed = {key: parsers[name].get_parsed_content(key) for key in ("network_def", "loss", "precision")}
        own = {key: type(value).__module__.split(".")[0] for key, value in parsed.items()}
        assert own == {"network_def": name, "loss": name, "precision": "medbundles"}
        written = json.loads((medbundles.get(name).root / "configs" / "train.json").read_text())
        numbers = [key for key in ("lr", "epochs", "phase_table") if key in written]
        assert numbers
        assert [parsers[name].get(key) for key in numbers] == [written[key] for key in numbers]
