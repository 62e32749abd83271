"""What is wrong with data, tokenizer, memory or folders is said before training, and costs nothing."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kif_case_files import cut_short, entry, save_picture, write_annotation
from kif_mrg.text import ReportTokenizer
from kif_training_runs import train, training


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


def write(folder: Path, first: dict[str, Any] | None = None, **splits: list[dict[str, Any]]) -> Path:
    """Six training, two validation and one test entry with pictures; `first` changes the first of all."""
    content = {
        "train": [
            entry(f"t{k}", study_id=f"study-t{k}", **(first or {}) if k == 0 else {}) for k in range(6)
        ],
        "val": [entry(f"v{k}", study_id=f"study-v{k}") for k in range(2)],
        "test": [entry("e0", study_id="study-e0")],
        **splits,
    }
    write_annotation(folder, content)
    return folder


def refused(data: Path, out: Path, kind: type[Exception] = ValueError, **overrides: Any) -> str:
    """The message of a run that ends without a trace: every file is as it was before."""
    before = contents(out)
    with pytest.raises(kind) as raised:
        train(data, out, **overrides)
    assert contents(out) == before
    return str(raised.value)


def contents(out: Path) -> dict[str, bytes]:
    files = [path for part in ("models", "eval") for path in (out / part).rglob("*") if path.is_file()]
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in files}


def test_missing_image_is_named_with_entry_and_key(data: Path, tmp_path: Path) -> None:
    write(data)
    image = data / "images" / "t1.png"
    image.unlink()
    message = refused(data, tmp_path)
    assert message.startswith("1 problem in the records")
    assert f"annotation.json, train, entry t1, key image_path, {image}: no such file" in message


def test_truncated_jpeg_is_named_with_entry_and_key(data: Path, tmp_path: Path) -> None:
    write(data, {"image_path": "t0.jpg"})
    noise = np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)
    image = cut_short(Path(save_picture(data / "images" / "t0.jpg", noise)))
    message = refused(data, tmp_path)
    assert f"annotation.json, train, entry t0, key image_path, {image}: cannot be decoded" in message


UNREADABLE: dict[str, tuple[dict[str, Any], str]] = {
    "empty report": ({"report": ""}, "train, entry t0, key report: must hold words, got ''"),
    "labels": ({"labels": [0] * 13}, "train, entry t0, key labels: must have 14 or 18 values, got 13"),
    "state": ({"labels": [4] + [0] * 17}, "key labels: enlarged_cardiomediastinum must be 0..3"),
}


@pytest.mark.parametrize(("first", "line"), UNREADABLE.values(), ids=list(UNREADABLE))
def test_unusable_entry_is_named_with_its_key(
    first: dict[str, Any], line: str, data: Path, tmp_path: Path
) -> None:
    message = refused(write(data, first), tmp_path)
    assert f"1 problem in {data / 'annotation.json'}" in message
    assert line in message
    assert not (tmp_path / "models").exists()


def test_unusable_entries_and_images_come_in_one_message(data: Path, tmp_path: Path) -> None:
    write(data, {"report": ""})
    (data / "images" / "t1.png").unlink()
    cut_short(data / "images" / "t2.png")
    message = refused(data, tmp_path, **{"records#_target_": "kif_mrg.validation.read_records"})
    assert message.startswith(f"3 problems in {data / 'annotation.json'}")
    for line in ("t0, key report: must hold words", "t1.png: no such file", "t2.png: cannot be decoded"):
        assert line in message


def test_unknown_split(data: Path, tmp_path: Path) -> None:
    message = refused(write(data, validation=[entry("x")]), tmp_path)
    assert "entry x, key split: must be one of train, val, test, got 'validation'" in message


@pytest.mark.parametrize(
    ("empty", "needs"), [("train", "got no training record"), ("val", "at least one record")]
)
def test_split_that_training_needs_is_empty(empty: str, needs: str, data: Path, tmp_path: Path) -> None:
    assert needs in refused(write(data, None, **{empty: []}), tmp_path)


def test_tokenizer_that_knows_no_word_is_named(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "foreign"
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "herz"]))
    message = refused(write(data), tmp_path, tokenizer_source=str(folder))
    assert "a tokenizer must know the words of a report" in message
    assert str(folder) in message


def test_tokenizer_of_another_language_is_named(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "foreign"
    ReportTokenizer.build(["the heart is normal in size . no pleural effusion"], folder)
    other = [entry(f"t{k}", report="心臓の大きさは正常 肺野は清明") for k in range(6)]
    message = refused(write(data, train=other), tmp_path, tokenizer_source=str(folder))
    assert f"{folder}: must know the words of the reports, 92% of their tokens are unknown" in message


def test_memory_with_validation_studies_is_refused(data: Path, tmp_path: Path) -> None:
    file = tmp_path / "memory.npz"
    studies = np.array(["other0", "study-v1", "other1", "other2", "other3", "study-e0"])
    np.savez(file, features=np.eye(6, 16, dtype=np.float32), study_ids=studies)
    settings: dict[str, Any] = {"memory_backend": "precomputed", "memory_source": str(file)}
    message = refused(write(data), tmp_path, **settings)
    for part in ("key study_ids", "must hold no study of validation or test", "study-v1", "study-e0"):
        assert part in message


def test_rows_of_the_own_study_are_left_out_and_not_refused(data: Path, tmp_path: Path, cache: Path) -> None:
    """PromptMRG's rows may name the very report of their image."""
    names = {"train": [f"t{k}" for k in range(6)], "val": ["v0", "v1"]}
    splits = {
        split: [entry(name, study_id=f"study-{name}", clip_indices=[int(name[1]), 3, 4]) for name in rows]
        for split, rows in names.items()
    }
    file = tmp_path / "memory.npz"
    np.savez(file, features=np.eye(6, 16, dtype=np.float32), study_ids=[f"study-t{k}" for k in range(6)])
    settings: dict[str, Any] = {"memory_backend": "precomputed", "memory_source": str(file)}
    parser = training(write(data, **splits), tmp_path, **settings).parser
    parser.get_parsed_content("prepare")()
    rows = {r["id"]: r["retrieved"] for name in splits for r in parser.get_parsed_content("records")[name]}
    assert (rows["t0"], rows["t3"], rows["v0"]) == ([3, 4, 3], [4, 4, 4], [0, 3, 4])
    assert all(int(name[1]) not in found for name, found in rows.items() if name[0] == "t")


@pytest.mark.parametrize("folder", ["below a file", "/proc/medbundles"])
@pytest.mark.parametrize("key", ["ckpt_dir", "output_dir"])
def test_folder_that_cannot_be_written(key: str, folder: str, data: Path, tmp_path: Path) -> None:
    (tmp_path / "below a file").touch()
    blocked = str(tmp_path / folder / "out")
    message = refused(write(data), tmp_path, OSError, **{key: blocked})
    assert f"output folder must be writable, got {blocked}" in message


def test_too_little_disk_space(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1e6}))
    message = refused(write(data), tmp_path, OSError)
    assert "needs 191 MiB of free space, its disk has 1 MiB" in message


def test_bad_input_costs_an_earlier_run_nothing(data: Path, trained: Path, tmp_path: Path) -> None:
    """Other words, one image less and a leaking memory, in the folders of a finished run."""
    out = Path(shutil.copytree(trained, tmp_path / "out"))
    write(data)
    leaking = tmp_path / "leaking.npz"
    np.savez(leaking, features=np.eye(6, 16, dtype=np.float32), study_ids=[f"study-v{k}" for k in range(6)])
    refused(data, out, memory_backend="precomputed", memory_source=str(leaking))
    (data / "images" / "t1.png").unlink()
    refused(data, out)
