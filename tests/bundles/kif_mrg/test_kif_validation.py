"""Checks before training: everything wrong with records, images, memory and tokenizer, in one message."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from kif_case_files import RAMP, cut_short, entry, save_picture, write_annotation
from kif_mrg import image_check
from kif_mrg.annotation import read_annotation
from kif_mrg.image_check import find_damage
from kif_mrg.records import Splits
from kif_mrg.validation import check_memory, check_records, read_records


@pytest.fixture(autouse=True)
def _own_cache(cache: Path) -> None:
    """Every test starts without a memory of checked images."""


def cohort(folder: Path, **changes: Any) -> Splits:
    """Three training, two validation and one test record of a study each, with their images."""
    content = {
        "train": [entry(f"t{i}", study_id=f"study-t{i}", **changes) for i in range(3)],
        "val": [entry(f"v{i}", study_id=f"study-v{i}") for i in range(2)],
        "test": [entry("e0", study_id="study-e0")],
    }
    return read_annotation(write_annotation(folder, content))


def problems(check: Callable[..., Any], *given: Any, **options: Any) -> str:
    with pytest.raises(ValueError, match="problem") as caught:
        check(*given, progress=False, **options)
    return str(caught.value)


class Tokenizer:
    """Knows the words it was given; everything else is unknown."""

    def __init__(self, *words: str) -> None:
        self.words = words
        self.hf = SimpleNamespace(name_or_path="models/tokenizer")

    def unknown_share(self, texts: Iterable[str]) -> float:
        pieces = " ".join(texts).split()
        return sum(piece not in self.words for piece in pieces) / len(pieces)


def memory(*studies: str) -> SimpleNamespace:
    return SimpleNamespace(study_ids=list(studies), path="memory.npz")


def test_sound_records_pass(tmp_path: Path) -> None:
    splits = cohort(tmp_path, retrieved=[3])
    known = Tokenizer("heart", "size", "is", "normal", ".", "no", "effusion", "in")
    rows = memory("study-t0", "study-t1", "study-t2", "study-t7")
    check_records(splits, rows, known, progress=False)
    check_records(splits, verify_images=False, progress=False)
    assert read_records(tmp_path, progress=False) == splits


def test_everything_wrong_comes_in_one_message(tmp_path: Path) -> None:
    splits = cohort(tmp_path)
    first, second, third = splits["train"]
    Path(first["image_path"][0]).unlink()
    noise = np.random.default_rng(0).integers(0, 9, (60, 60), np.uint8)
    cut_short(Path(save_picture(tmp_path / "images" / "t1.png", noise)))
    third["labels"] = [0] * 7
    third["report"] = " ."
    second["labels"][2] = 4
    splits["val"][0]["study_id"] = "study-t0"
    splits["val"][1]["id"] = "t2"
    splits["dev"] = [splits["test"].pop()]
    rows = memory("study-t1", "study-v1")
    first["retrieved"], second["retrieved"] = [2], [0]
    message = problems(check_records, splits, rows, Tokenizer("heart"))
    expected = (
        "annotation.json, train, entry t0, key image_path, " + first["image_path"][0] + ": no such file",
        "annotation.json, train, entry t1, key image_path, "
        + second["image_path"][0]
        + ": cannot be decoded",
        "annotation.json, train, entry t2, key labels: must have 14 or 18 values, got 7",
        "annotation.json, train, entry t2, key report: must hold words",
        "annotation.json, train, entry t1, key labels: lung_opacity must be 0..3, or -100 for unknown, got 4",
        "annotation.json, val, entry v0, key study_id: study study-t0 is also in train",
        "annotation.json, val, entry t2, key id: is used twice",
        "annotation.json, test, entry e0, key split: must be dev, where it is filed",
        "memory.npz, key study_ids: must hold training reports only, got 1 of val: study-v1",
        "annotation.json, train, entry t0, key retrieved: must be rows 0..1 of memory.npz, got up to 2",
        "annotation.json, train, entry t1, key retrieved: must not hold the report of its own study study-t1",
        "models/tokenizer: must know the words of the reports, 90% of their tokens are unknown",
    )
    for line in expected:
        assert line in message
    assert message.startswith(f"{len(expected)} problems in the records:")


def test_reading_and_checking_share_one_message(tmp_path: Path) -> None:
    rows = [entry("gone"), entry("empty", report=""), {"id": "bare"}]
    path = write_annotation(tmp_path, {"train": rows, "validation": [entry("v")]}, images=False)
    save_picture(tmp_path / "images" / "empty.png")
    save_picture(tmp_path / "images" / "v.png")
    message = problems(read_records, path)
    assert message.startswith(f"5 problems in {path}:")
    for line in (
        "entry gone, key image_path, ",
        "entry empty, key report",
        "entry bare, key image_path: required",
        "entry bare, key report: required",
        "entry v, key split: must be one of train, val, test",
    ):
        assert line in message


def test_images_of_a_sound_file_are_left_to_the_check(tmp_path: Path) -> None:
    path = write_annotation(tmp_path, {"train": [entry("later")]}, images=False)
    splits = read_records(path, progress=False)
    assert "entry later, key image_path, " in problems(check_records, splits)


def test_unknown_split_and_missing_keys_of_handmade_records(tmp_path: Path) -> None:
    (record,) = cohort(tmp_path)["test"]
    lacking = {key: value for key, value in record.items() if key not in ("report", "labels")}
    message = problems(check_records, {"dev": [{**record, "split": "dev"}], "train": [lacking]})
    assert "entry e0, key split: must be one of train, val, test, got 'dev'" in message
    assert "entry e0, key report: required, missing" in message
    assert "entry e0, key labels: required, missing" in message
    assert "at least one entry" in problems(check_records, {"train": [], "val": []})


def test_held_out_studies_in_the_memory_are_found_alone(tmp_path: Path) -> None:
    splits = cohort(tmp_path)
    check_memory(splits, memory("study-t0", "study-t1"))
    with pytest.raises(ValueError, match=r"memory\.npz, key study_ids: .*got 1 of test: study-e0"):
        check_memory(splits, memory("study-t0", "study-e0"))
    splits["train"][0]["retrieved"] = [-1]
    with pytest.raises(ValueError, match="entry t0, key retrieved: must be rows"):
        check_memory(splits, memory("study-t5"))


def test_image_in_two_splits_is_found(tmp_path: Path) -> None:
    splits = cohort(tmp_path)
    splits["test"][0]["image_path"] = splits["train"][1]["image_path"]
    message = problems(check_records, splits)
    assert message.startswith("1 problem in the records:")
    assert f"entry e0, key image_path, {splits['train'][1]['image_path'][0]}: is also in train" in message


def test_patient_in_two_splits_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    splits = cohort(tmp_path, subject_id=10000032)
    splits["val"][0]["subject_id"] = "10000032"
    with caplog.at_level(logging.WARNING):
        check_records(splits, progress=False)
    assert "1 patients are in more than one split, e.g. 10000032" in caplog.text


def test_truncated_file_needs_decoding_to_be_found(tmp_path: Path) -> None:
    splits = cohort(tmp_path)
    noise = np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)
    path = save_picture(tmp_path / "cut.jpg", noise)
    splits["train"][0]["image_path"] = [cut_short(Path(path))]
    check_records(splits, verify_images=False, progress=False)
    assert f"entry t0, key image_path, {path}: cannot be decoded" in problems(check_records, splits)


def test_sound_set_is_read_once_until_a_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    monkeypatch.setattr(
        image_check,
        "image_problem",
        lambda path, decode, check=image_check.image_problem: read.append(path) or check(path, decode),
    )
    files = [save_picture(tmp_path / f"{number}.png") for number in range(3)]
    for _ in range(2):
        assert find_damage(files, progress=False) == {}
    assert sorted(read) == files
    save_picture(tmp_path / "1.png", RAMP[:20])
    assert find_damage(files, progress=False) == {}
    assert len(read) == 6
    Path(files[2]).write_bytes(b"")
    for _ in range(2):
        assert list(find_damage(files, progress=False)) == [files[2]]


def test_many_files_keep_their_own_answers(tmp_path: Path) -> None:
    files = [save_picture(tmp_path / f"{number}.png", RAMP[:3, :3]) for number in range(250)]
    for number in (0, 3, 199, 249):
        Path(files[number]).unlink()
    assert find_damage(files, progress=False) == dict.fromkeys(
        [files[i] for i in (0, 3, 199, 249)], "no such file"
    )
