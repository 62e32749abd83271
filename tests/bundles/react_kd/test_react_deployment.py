"""The bundle as others use it: metadata, TorchScript, MONAI's verification, a server's transforms."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from medbundles.contract.metadata import schema_problems
from monai.bundle import ckpt_export, verify_net_in_out
from monai.data import load_net_with_metadata
from react_case_files import write_case
from react_inference_runs import BUNDLE, CONFIG, NETWORK, extreme_seeking_weights, predict, random_weights
from react_inference_runs import workflow as make_workflow
from react_kd.inference import load_student
from react_kd.networks import Student

pytestmark = pytest.mark.usefixtures("cache")
META = BUNDLE / "configs" / "metadata.json"


def test_the_metadata_keep_to_the_schema() -> None:
    metadata = json.loads(META.read_text())
    assert schema_problems(metadata) == []
    assert metadata["version"] in metadata["changelog"]


def test_the_network_maps_the_declared_input_to_the_declared_output() -> None:
    verify_net_in_out("network_def", meta_file=str(META), config_file=str(CONFIG), bundle_root=str(BUNDLE))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("head", [{"pool": "avgmax"}, {"pool": "avg", "hidden": 8, "dropout": 0.3}])
def test_torchscript_equals_eager(channels: int, head: dict) -> None:
    student = Student(3, 16, "segresnet", {"init_filters": 4, "blocks_down": [1, 1]}, **head).eval()
    scripted = torch.jit.script(student)
    image = torch.randn(2, channels, 16, 16, 8)
    available = torch.tensor([[True, False], [True, True]])
    with torch.no_grad():
        torch.testing.assert_close(scripted(image), student(image))
        torch.testing.assert_close(scripted(image, available), student(image, available))


def test_an_exported_checkpoint_answers_like_the_network(tmp_path: Path) -> None:
    models = random_weights(tmp_path)
    exported = tmp_path / "model.ts"
    ckpt_export(
        "network_def", filepath=str(exported), ckpt_file=f"{models}/model.pt", meta_file=str(META),
        config_file=str(CONFIG), bundle_root=str(BUNDLE),
    )  # fmt: skip
    scripted, metadata, extra = load_net_with_metadata(str(exported), more_extra_files=("inference.json",))
    student = load_student(Student(**NETWORK), f"{models}/model.pt").eval()
    image = torch.randn(2, 1, *metadata["network_data_format"]["inputs"]["image"]["spatial_shape"])
    with torch.no_grad():
        torch.testing.assert_close(scripted.eval()(image), student(image))
    assert json.loads(extra["inference.json"])["network_def"]["_target_"] == "react_kd.networks.Student"


def test_a_server_that_knows_only_the_image_gets_probabilities(tmp_path: Path) -> None:
    case = write_case(tmp_path / "data", "a")
    run = make_workflow(random_weights(tmp_path), tmp_path / "data", tmp_path / "out")
    sample = run.preprocessing({"image": case["image"]})
    network = run.network_def.eval()
    with torch.no_grad():
        logits = run.inferer(sample["image"].as_tensor()[None], network)[0]
    chances = run.postprocessing({"pred": logits})["pred"]
    assert chances.shape == (3,)
    torch.testing.assert_close(chances, logits.softmax(dim=0))


def test_a_missing_or_foreign_checkpoint_is_said_before_anything_is_written(tmp_path: Path) -> None:
    write_case(tmp_path / "data", "a")
    with pytest.raises(FileNotFoundError, match=r"no trained student at .*model\.pt: train one with `python"):
        predict(str(tmp_path / "nowhere"), tmp_path / "data", tmp_path / "out")
    with pytest.raises(ValueError, match=r"another architecture; \d+ keys differ"):
        predict(extreme_seeking_weights(tmp_path), tmp_path / "data", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_output_folder_that_cannot_be_written_stops_the_run(tmp_path: Path) -> None:
    write_case(tmp_path / "data", "a")
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"output folder must be writable, got .*file/out"):
        predict(random_weights(tmp_path), tmp_path / "data", tmp_path / "file" / "out")


def test_a_scan_id_that_leaves_the_output_folder_is_an_error(tmp_path: Path) -> None:
    case = {**write_case(tmp_path / "data", "a"), "scan_id": "../a"}
    (tmp_path / "list.json").write_text(json.dumps({"test": [case]}))
    with pytest.raises(ValueError, match=r"scan_id must do as the name of a folder .* got '../a'"):
        predict(random_weights(tmp_path), tmp_path / "list.json", tmp_path / "out")


def test_inference_prepares_and_builds_what_training_does() -> None:
    train = json.loads((BUNDLE / "configs" / "train.json").read_text())
    inference = json.loads(CONFIG.read_text())
    assert all(train[key] == inference[key] for key in ("network_def", "size", "roi"))
    only = {"dose_levels", "keep_meta"}  # of the teacher, and of the way back to the CT
    steps = (train["preprocess"], inference["preprocessing"])
    prepared = [{key: value for key, value in step.items() if key not in only} for step in steps]
    assert prepared[0] == prepared[1]
