"""What is wrong with data, folders or checkpoints is said before training starts, and nothing is lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from react_case_files import write_case
from react_kd.networks import Teacher
from react_training_runs import train


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cohort of three sound cases per split."""
    folder = tmp_path_factory.mktemp("cases") / "data"
    for split in ("training", "validation"):
        for grade in range(3):
            write_case(folder, f"{split}{grade}", grade)
    return folder


def datalist(data: Path, **changes: Any) -> dict[str, str]:
    """Override `datalist` with a list of the cases in `data`; `changes` replace keys of the first one."""
    splits: dict[str, list[dict[str, Any]]] = {}
    for split in ("training", "validation"):
        splits[split] = [
            {"patient_id": f"{split}{k}", "scan_id": f"{split}{k}", "label": k}
            | {
                key: str(data / f"{split}{k}" / f"{key}.nii.gz")
                for key in ("image", "liver", "mass", "pet_fdg")
            }
            for k in range(3)
        ]
    splits["training"][0] |= changes
    path = data.parent / "datalist.json"
    path.write_text(json.dumps(splits))
    return {"datalist": str(path)}


def assert_nothing_was_trained(out: Path) -> None:
    assert not list(out.rglob("*.pt"))
    assert not list(out.rglob("*history.jsonl"))


def test_truncated_image_is_named_with_case_and_key(data: Path, tmp_path: Path) -> None:
    whole = (data / "training1" / "pet_fdg.nii.gz").read_bytes()
    broken = tmp_path / "broken.nii.gz"
    broken.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError) as raised:
        train(data, tmp_path, **datalist(data, pet_fdg=str(broken)))
    for part in ("1 problems in the data", "case training0", "key pet_fdg", str(broken)):
        assert part in str(raised.value)
    assert_nothing_was_trained(tmp_path)


def test_all_problems_come_at_once(data: Path, tmp_path: Path) -> None:
    missing = str(tmp_path / "nowhere.nii.gz")
    with pytest.raises(ValueError, match="2 problems in the data") as raised:
        train(data, tmp_path, **datalist(data, mass=missing, liver=None))
    assert f"case training0, key mass: no such file {missing}" in str(raised.value)
    assert "case training0, key liver: required, missing" in str(raised.value)


def test_label_outside_the_classes(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"case training0, key label: must be one of 0\.\.2.*got 3"):
        train(data, tmp_path, **datalist(data, label=3))


@pytest.mark.parametrize("folder", ["below a file", "/proc/medbundles"])
@pytest.mark.parametrize("key", ["ckpt_dir", "output_dir"])
def test_folder_that_cannot_be_written(key: str, folder: str, data: Path, tmp_path: Path) -> None:
    (tmp_path / "below a file").touch()
    blocked = str(tmp_path / folder / "out")
    with pytest.raises(OSError, match="output folder must be writable, got") as raised:
        train(data, tmp_path, **datalist(data), **{key: blocked})
    assert blocked in str(raised.value)
    assert_nothing_was_trained(tmp_path)


def test_too_little_disk_space(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1e6}))
    with pytest.raises(OSError, match=r"needs 191 MiB of free space, its disk has 1 MiB"):
        train(data, tmp_path, **datalist(data))


def test_missing_teacher_checkpoint(data: Path, tmp_path: Path) -> None:
    path = str(tmp_path / "nowhere.pt")
    with pytest.raises(FileNotFoundError, match=f"teacher_checkpoint: no file {path}"):
        train(data, tmp_path, **datalist(data), teacher_checkpoint=path)
    assert_nothing_was_trained(tmp_path)


def test_teacher_checkpoint_of_another_architecture(data: Path, tmp_path: Path) -> None:
    path = tmp_path / "wide.weights"
    torch.save(Teacher(3, 48, {"feature_size": 24, "level": 1, "window_size": (4, 4, 4)}).state_dict(), path)
    with pytest.raises(ValueError, match="another architecture") as raised:
        train(data, tmp_path, **datalist(data), teacher_checkpoint=str(path))
    assert f"teacher_checkpoint: {path}" in str(raised.value)
    assert "dose_head.classify.0.bias must be (64,), got (48,)" in str(raised.value)
    assert_nothing_was_trained(tmp_path)
