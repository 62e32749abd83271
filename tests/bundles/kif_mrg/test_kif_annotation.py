"""Reading annotation files: the published formats, studies, labels, errors that name file, entry and key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from kif_case_files import entry, write_annotation
from kif_mrg import annotation
from kif_mrg.annotation import read_annotation
from kif_mrg.conditions import CONDITIONS, IGNORE
from medbundles.text.labeler import label_report


def problems(path: Path, **options: Any) -> str:
    with pytest.raises(ValueError) as caught:
        read_annotation(path, progress=False, **options)
    return str(caught.value)


def test_r2gen_file_is_read_with_absolute_paths_and_clean_reports(tmp_path: Path) -> None:
    pair = entry(
        "CXR2384_IM-0942", ["CXR2384_IM-0942/0.png", "CXR2384_IM-0942/1.png"], report="1. Clear LUNGS."
    )
    path = write_annotation(tmp_path, {"train": [pair], "val": [], "test": [entry("b")]}, images=False)
    splits = read_annotation(path)
    assert list(splits) == ["train", "val", "test"]
    (record,) = splits["train"]
    assert record["image_path"] == [str(tmp_path / "CXR2384_IM-0942" / name) for name in ("0.png", "1.png")]
    assert (record["report"], record["raw"]) == ("clear lungs .", "1. Clear LUNGS.")
    assert (record["split"], record["study_id"], splits["val"]) == ("train", "CXR2384", [])
    assert read_annotation(tmp_path, split="test")["train"] == []


def test_images_folder_beside_the_file_is_found_and_image_dir_goes_first(tmp_path: Path) -> None:
    path = write_annotation(tmp_path, {"train": [entry("a")]})
    assert read_annotation(path)["train"][0]["image_path"] == [str(tmp_path / "images" / "a.png")]
    other = read_annotation(path, image_dir="/elsewhere")["train"][0]
    assert other["image_path"] == ["/elsewhere/a.png"]


def test_flat_list_is_test_unless_its_entries_say_otherwise(tmp_path: Path) -> None:
    path = write_annotation(tmp_path, [entry("a"), entry("b", split="train")], images=False)
    splits = read_annotation(path)
    assert [len(splits[name]) for name in ("train", "val", "test")] == [1, 0, 1]
    whole = read_annotation(path, whole_as="test")
    assert [record["split"] for record in whole["test"]] == ["test", "test"]
    assert whole["train"] == []


def test_max_words_cuts_the_reference_and_style_is_passed_on(tmp_path: Path) -> None:
    path = write_annotation(tmp_path, [entry("a", report="One  two.\nThree four.")], images=False)
    assert read_annotation(path, style="mimic", max_words=3)["test"][0]["report"] == "one two ."
    assert "two.\nthree" not in read_annotation(path)["test"][0]["report"]
    assert "\n" in read_annotation(path)["test"][0]["report"]


def test_fourteen_labels_run_under_eighteen_conditions(tmp_path: Path) -> None:
    labels = [0, 1, 2, 3] * 3 + [0, 1]
    rows = [entry("a", labels=labels), entry("b", labels=[*labels, 3, 2, 1, None])]
    first, second = read_annotation(write_annotation(tmp_path, rows, images=False))["test"]
    assert first["labels"] == labels + [IGNORE] * 4
    assert second["labels"] == [*labels, 3, 2, 1, IGNORE]


def test_labels_follow_the_configured_conditions_by_name(tmp_path: Path) -> None:
    labels = [2] * 13 + [0] + [3] * 4
    labels[CONDITIONS.index("edema")] = 1
    path = write_annotation(tmp_path, [entry("a", labels=labels)], images=False)
    chosen = ("aorta_abnormal", "edema", "device_of_our_own")
    assert read_annotation(path, conditions=chosen)["test"][0]["labels"] == [3, 1, IGNORE]


def test_reports_without_labels_are_labelled_by_rules_once_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(
        annotation,
        "label_reports",
        lambda texts, rules=annotation.label_reports: asked.extend(texts) or rules(texts),
    )
    text = "There is a large left pleural effusion. No pneumothorax."
    rows = [entry("a", labels=None, report=text), entry("b", labels=None, report=text), entry("c")]
    splits = read_annotation(write_annotation(tmp_path, rows, images=False), progress=False)
    expected = label_report(text) + [IGNORE] * 4
    assert [record["labels"] for record in splits["test"][:2]] == [expected, expected]
    assert expected[CONDITIONS.index("pleural_effusion")] == 1
    assert asked == [text]
    assert splits["test"][0]["labels"] is not splits["test"][1]["labels"]


@pytest.mark.parametrize(
    ("given", "study", "subject"),
    [
        ({"study_id": 50414267, "subject_id": 10000032}, "50414267", "10000032"),
        ({"study_id": "s50414267", "subject_id": "p10000032"}, "50414267", "10000032"),
        ({"image_path": "p10/p10000032/s50414267/02aa.jpg"}, "50414267", "10000032"),
        ({"id": "CXR1044_IM-0036"}, "CXR1044", None),
        ({"id": "visit7"}, "visit7", None),
    ],
)
def test_study_and_subject(tmp_path: Path, given: dict[str, Any], study: str, subject: str | None) -> None:
    path = write_annotation(tmp_path, [{**entry("a"), **given}], images=False)
    (record,) = read_annotation(path)["test"]
    assert (record["study_id"], record.get("subject_id")) == (study, subject)


def test_all_problems_come_in_one_message_with_entry_and_key(tmp_path: Path) -> None:
    rows = [
        entry("empty", report=" ... "),
        entry("short", labels=[0] * 13),
        entry("code", labels=[-1] + [0] * 17),
        entry("none", labels=[0] * 13 + [2]),
        {"id": "bare"},
        "text",
        entry("moved", split="val"),
        entry("number", report=3),
        entry("paths", image_path=[1]),
    ]
    path = write_annotation(tmp_path, {"train": rows, "validation": [entry("v")], "note": "x"}, images=False)
    message = problems(path)
    assert message.startswith(f"11 problems in {path}")
    for line in (
        "annotation.json, train, entry empty, key report: must hold words, got ' ... '",
        "annotation.json, train, entry short, key labels: must have 14 or 18 values, got 13",
        "annotation.json, train, entry code, key labels: enlarged_cardiomediastinum must be 0..3",
        "annotation.json, train, entry none, key labels: no_finding must be 0..1",
        "annotation.json, train[4], entry bare, key report: required, missing",
        "annotation.json, train[4], entry bare, key image_path: required, missing",
        "annotation.json, train[5], key entry: must be an object",
        "annotation.json, train[6], entry moved, key split: must be train, as the list it is in, got 'val'",
        "annotation.json, train[7], entry number, key report: must be text, got 3",
        "annotation.json, train[8], entry paths, key image_path: must be a path or a list of paths, got [1]",
        "annotation.json, validation, entry v, key split: must be one of train, val, test, got 'validation'",
    ):
        assert line in message


def test_a_systematic_mistake_is_cut_to_a_count(tmp_path: Path) -> None:
    path = write_annotation(
        tmp_path, {"train": [entry(f"e{i}", labels=[9]) for i in range(50)]}, images=False
    )
    message = problems(path)
    assert message.startswith("50 problems")
    assert message.endswith("... and 30 more about labels")


def test_unusable_files_and_options_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"annotation not found: .*annotation\.json"):
        read_annotation(tmp_path)
    path = tmp_path / "annotation.json"
    for text, expected in (("{'a'", "is not valid JSON"), ("3", "must hold an object of splits or a list")):
        path.write_text(text)
        assert str(path) in problems(path)
        assert expected in problems(path)
    path.write_text(json.dumps({"train": {}}))
    assert "key train: must be a list of entries" in problems(path)
    assert "split must be one of train, val, test or None, got 'dev'" in problems(path, split="dev")
