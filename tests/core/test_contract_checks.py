"""Every fault that `verify` looks for is found, with file and key, and all of them at once."""

import json
import sys
from pathlib import Path

import pytest
from medbundles.bundle import make_importable, read_bundle
from medbundles.contract import static_problems
from medbundles.contract.code import code_problems
from medbundles.contract.configs import executed
from medbundles.contract.expressions import expression_problems
from medbundles.contract.network import network_problems
from medbundles.contract.properties import property_problems, target_problems
from medbundles.contract.weights import sha256
from medbundles.scaffold import TEMPLATE, scaffold

METADATA = json.loads((TEMPLATE / "configs" / "metadata.json").read_text())


@pytest.fixture(autouse=True)
def separate(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("MEDBUNDLES_CACHE", str(tmp_path / "cache"))


def edit(root: Path, file: str, **changes: object) -> None:
    path = root / "configs" / file
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def faults(root: Path) -> str:
    return "\n".join(static_problems(read_bundle(root.resolve(), "path")))


def test_the_template_has_no_static_fault(tmp_path):
    assert faults(scaffold("con_clean", tmp_path)) == ""


def test_all_faults_are_named_at_once(tmp_path):
    root = scaffold("con_many", tmp_path)
    (root / "LICENSE").unlink()
    edit(root, "metadata.json", version="2.0", authors=["a"], required_packages_version={"medbundles": "99"})
    edit(root, "train.json", initialize=["$open('x')"], helper={"_target_": "os.system", "command": "ls"})
    edit(root, "inference.json", dataset_dir="@nowhere", run=["%/etc/other.json::run"])
    (root / "configs" / "broken.json").write_text("{")
    (root / "large_files.json").write_text(json.dumps({"large_files": [{"path": "../x"}, {"path": "y"}]}))
    found = faults(root)
    for expected in [
        "LICENSE: required",
        "metadata.json: authors:",
        "changelog must have an entry for version '2.0'",
        "medbundles 99 is required",
        "train.json: initialize",
        "must not use open",
        "helper: _target_ must begin with one of monai, torch, ignite, numpy, medbundles, con_many",
        "inference.json: dataset_dir: nothing is called 'nowhere'",
        "a macro must stay inside the bundle",
        "broken.json: is no valid JSON",
        "../x: must stay inside the bundle",
        "y: needs hash_type sha256",
    ]:
        assert expected in found


def test_missing_ids_and_repeated_keys_are_named(tmp_path):
    root = scaffold("con_ids", tmp_path)
    file = root / "configs" / "inference.json"
    content = json.loads(file.read_text())
    del content["run"]
    file.write_text(json.dumps(content))
    (root / "configs" / "twice.json").write_text('{"lr": 1, "lr": 2}')
    found = faults(root)
    assert "inference.json: the id 'run' is required" in found
    assert "twice.json: is no valid JSON: the key 'lr' stands there twice" in found


def test_weights_must_have_their_sum(tmp_path):
    root = scaffold("con_weights", tmp_path)
    weights = root / "models" / "model.pt"
    weights.write_bytes(b"weights")
    entry = {"path": "models/model.pt", "hash_type": "sha256", "hash_val": sha256(weights)}
    (root / "large_files.json").write_text(json.dumps({"large_files": [entry]}))
    assert faults(root) == ""
    weights.write_bytes(b"other weights")
    assert "models/model.pt: SHA-256 must be" in faults(root)


@pytest.mark.parametrize(
    "text",
    [
        "$__import__('os').system('ls')",
        "$eval('1')",
        "$(lambda: 0).__globals__",
        "$os.system('ls')",
        "$import subprocess",
        "$from os import system",
        "$import os as o",
        "$getattr(os, 'sys' + 'tem')('ls')",
        "$open('/etc/passwd').read()",
        "$a = 1",
        "$1 +",
    ],
)
def test_dangerous_or_broken_expressions_are_found(text):
    assert expression_problems(text)


@pytest.mark.parametrize(
    "text",
    [
        "$import os",
        "$import monai.data as data",
        "$@network_def.to(@device)",
        "$@train#trainer.run()",
        "$@##ids::0 + 1",
        "$next((p for p in ('a', '.') if os.path.isfile(p + '/x')), '.')",
        "$x['pred'].argmax(1)",
    ],
)
def test_ordinary_expressions_pass(text):
    assert expression_problems(text) == []


def test_what_would_be_executed_can_be_shown(tmp_path):
    shown = executed(read_bundle(scaffold("con_shown", tmp_path), "path"))
    assert "con_shown.networks.GatedUNet" in shown
    assert "$@network_def.to(@device)" in shown


def test_unknown_targets_missing_ids_and_wrong_outputs_are_found(tmp_path):
    root = scaffold("con_dynamic", tmp_path)
    edit(root, "train.json", loss={"_target_": "con_dynamic.losses.Dice"}, device=None)
    content = json.loads((root / "configs" / "inference.json").read_text())
    del content["evaluator"], content["inferer"]
    (root / "configs" / "inference.json").write_text(json.dumps(content))
    output = METADATA["network_data_format"]["outputs"]["pred"] | {"num_channels": 3, "dtype": "float64"}
    inputs = METADATA["network_data_format"]["inputs"]
    edit(root, "metadata.json", network_data_format={"inputs": inputs, "outputs": {"pred": output}})
    info = read_bundle(root.resolve(), "path")
    make_importable(info)
    assert target_problems(info) == [
        "configs/train.json: loss: nothing callable is called con_dynamic.losses.Dice"
    ]
    properties = "\n".join(property_problems(info))
    assert "train.json: cannot be built" in properties
    assert "inference.json: the id 'evaluator' is required for the property evaluator" in properties
    assert "inference.json: the id 'inferer' is required for the property inferer" in properties
    assert network_problems(info) == [
        "network_def: pred must have shape (1, 3, 16, 16, 16), got (1, 2, 16, 16, 16)",
        "network_def: pred must be torch.float64, got torch.float32",
    ]


def test_heavy_imports_are_found(tmp_path):
    root = scaffold("con_heavy", tmp_path)
    (root / "con_heavy" / "__init__.py").write_text("import json\nfrom transformers import AutoModel\n")
    assert code_problems(read_bundle(root.resolve(), "path")) == [
        "package: import con_heavy must not import transformers"
    ]


def test_a_bundle_without_a_package_of_its_own_is_refused(tmp_path):
    root = scaffold("con_bare", tmp_path)
    (root / "con_bare").rename(root / "scripts")
    (problem,) = code_problems(read_bundle(root.resolve(), "path"))
    assert "must be a package of its own" in problem
