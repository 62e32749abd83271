"""What inference takes as input: an image, a folder, a datalist; and what it says of one with faults."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from kif_mrg.case_sources import cases_from


def _touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def _datalist(folder: Path, content: object) -> Path:
    (folder / "list.json").write_text(json.dumps(content))
    return folder / "list.json"


def test_a_folder_gives_every_image_below_it_and_nothing_else(tmp_path) -> None:
    _touch(
        tmp_path,
        "b.png",
        "a/x.jpg",
        "a/x.dcm",
        "notes.txt",
        ".hidden/y.png",
        "a/.z.png",
        "short",
        "reports.html",
    )
    (tmp_path / "1.2.840.99").write_bytes(bytes(128) + b"DICM")
    (tmp_path / "IMG0001").write_bytes(bytes(128) + b"DICM")
    cases = cases_from(tmp_path)
    assert [case["id"] for case in cases] == ["1.2.840.99", "IMG0001", "a/x.dcm", "a/x.jpg", "b.png"]
    assert cases[2]["image_path"] == [str(tmp_path / "a/x.dcm")]


def test_an_image_is_a_case_of_its_own(tmp_path) -> None:
    _touch(tmp_path, "x.jpeg")
    assert [case["image_path"] for case in cases_from(tmp_path / "x.jpeg")] == [[str(tmp_path / "x.jpeg")]]


def test_a_list_of_ids_and_paths_is_enough(tmp_path) -> None:
    _touch(tmp_path, "images/1.png", "2.png")
    elsewhere = str(tmp_path / "elsewhere" / "3.png")
    entries = [{"id": 7, "image_path": "1.png"}, {"image_path": ["2.png", elsewhere]}]
    first, second = cases_from(_datalist(tmp_path, entries))
    assert (first["id"], first["image_path"]) == ("7", [str(tmp_path / "images/1.png")])
    assert (second["id"], second["image_path"]) == ("2.png", [str(tmp_path / "2.png"), elsewhere])
    assert cases_from(tmp_path / "list.json", image_dir="/films")[0]["image_path"] == ["/films/1.png"]


def test_an_annotation_gives_its_test_split_unless_another_is_asked_for(tmp_path) -> None:
    entry = {"image_path": ["CXR5_IM-1/0.png"], "report": "Lungs clear.", "labels": [0] * 14}
    content = {
        "train": [{"id": "CXR5_IM-1", **entry}],
        "val": [],
        "test": [{"id": "t", **entry}],
        "about": "x",
    }
    (tmp_path / "annotation.json").write_text(json.dumps(content))
    (case,) = cases_from(tmp_path)
    assert (case["id"], case["split"], case["report"]) == ("t", "test", "Lungs clear.")
    assert [case["id"] for case in cases_from(tmp_path, "all")] == ["CXR5_IM-1", "t"]
    assert cases_from(tmp_path, "train")[0]["study_id"] == "CXR5"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            [{"id": "a"}],
            r"list\.json: entry\[0\]: key image_path must be a path or a list of paths, got None",
        ),
        ({"test": [{"id": "a", "image_path": []}]}, r"test\[0\]: key image_path must be .* got \[\]"),
        ([{"id": "", "image_path": "x.png"}], r"entry\[0\]: key id must be a text, got ''"),
        ([{"id": "a", "image_path": "x.png"}] * 2, r"key id: every case needs its own, got 'a' twice"),
        (["x.png"], r"entry\[0\]: must be an object, got 'x\.png'"),
        ({"test": "x.png"}, r"test must be a list of entries, got 'x\.png'"),
        ("x.png", r"it must be a list of entries"),
        ([], r"split 'all' has no entry"),
    ],
)
def test_a_datalist_with_a_fault_names_file_entry_and_key(tmp_path, content, message) -> None:
    with pytest.raises(ValueError, match=message):
        cases_from(_datalist(tmp_path, content))


def test_other_input_says_what_is_wanted(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match="must be an image"):
        cases_from(tmp_path / "none")
    with pytest.raises(ValueError, match="holds no image"):
        cases_from(tmp_path)
    _touch(tmp_path, "x.txt")
    with pytest.raises(ValueError, match=r"got .*x\.txt"):
        cases_from(tmp_path / "x.txt")
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(ValueError, match="must be JSON"):
        cases_from(tmp_path / "broken.json")
    with pytest.raises(ValueError, match="split must be one of train, val, test, all or auto, got 'dev'"):
        cases_from(_datalist(tmp_path, []), "dev")
