"""Datalists, datasets with their caches, and the loaders that mix graded and ungraded cases."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.data import CacheDataset, Dataset, PersistentDataset
from react_case_files import write_case
from react_kd.cases import grade_of
from react_kd.data import cases, fill_cache, make_dataset, read_datalist
from react_kd.transforms import augmentation, preprocessing

SIZE = (12, 10, 8)


def entry(k: int, **more: Any) -> dict[str, Any]:
    return {"patient_id": f"p{k}", "scan_id": f"s{k}", "image": f"ct{k}.nii.gz", **more}


def write_list(folder: Path, **content: Any) -> Path:
    path = folder / "list.json"
    path.write_text(json.dumps(content))
    return path


def test_json_datalist(tmp_path: Path) -> None:
    rows = [entry(0, label=2, mass="/abs/m.nii.gz", clinical={"afp": 4}), entry(1, label=None, liver=None)]
    path = write_list(tmp_path, name="n", training=rows, test=[entry(2, label="moderate")], source={"a": 1})
    datalist = read_datalist(path)
    assert (datalist.name, datalist.classes) == ("n", ("well", "moderate", "poor"))
    first, second = datalist.splits["training"]
    image = str(tmp_path / "ct0.nii.gz")
    assert first == {**rows[0], "image": image}
    assert second == {"patient_id": "p1", "scan_id": "s1", "image": str(tmp_path / "ct1.nii.gz")}
    assert datalist.splits["test"][0]["label"] == 1
    assert [c["scan_id"] for c in cases(path, "all")] == ["s0", "s1", "s2"]


def test_csv_datalist_equals_json(tmp_path: Path) -> None:
    table = tmp_path / "list.csv"
    table.write_text(
        "\ufeffpatient_id,scan_id,image,pet_fdg,label,split,age,sex\n"
        "7,s0,ct0.nii.gz,fdg.nii.gz,0,,61,F\n8,s1,sub/ct1.nii.gz,,,test,,\n",
        encoding="utf-8",
    )
    rows = [entry(0, patient_id=7, pet_fdg="fdg.nii.gz", label=0, clinical={"age": 61.0, "sex": "F"})]
    path = write_list(tmp_path, training=rows, test=[entry(1, patient_id=8, image="sub/ct1.nii.gz")])
    assert read_datalist(table).splits == read_datalist(path).splits


def test_all_problems_come_in_one_error(tmp_path: Path) -> None:
    rows = [
        entry(0, pet_fdgg="x.nii.gz"),
        entry(1, label=3),
        entry(2, image=None),
        entry(0, patient_id="p9"),
        entry(4, label="masks/a.nii.gz"),
        entry(5, pet_act=4),
    ]
    path = write_list(tmp_path, training=rows, validation=[entry(6, patient_id="p1")], trainning=[entry(7)])
    with pytest.raises(ValueError, match="8 problems") as caught:
        read_datalist(path)
    text = str(caught.value)
    for part in (
        str(path),
        "training[0], case s0, key pet_fdgg: unknown modality or column, nearest known key: pet_fdg",
        "case s1, key label: must be one of 0..2, well, moderate, poor, or nothing",
        "training[2], case s2, key image: required, missing",
        "training[3], case s0, key scan_id: s0 is used twice, first in training[0]",
        "case s4, key label",
        "is a file; label is the grade",
        "case s5, key pet_act: must be a path, got 4",
        "validation[0], case s6, key patient_id: patient p1 is also in training",
        "key trainning: unknown split, the nearest known one is training",
    ):
        assert part in text


@pytest.mark.parametrize("label", [3, -1, 1.5, True, "severe", [0], float("nan")])
def test_label_outside_the_classes(label: Any) -> None:
    with pytest.raises(ValueError, match=r"case s0, key label: must be one of 0\.\.2"):
        grade_of(entry(0, label=label))


def test_files_that_are_no_datalist(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="datalist not found"):
        read_datalist(tmp_path / "none.json")
    for name, text in (("a.json", "{"), ("b.json", "[]"), ("c.json", "{}"), ("d.txt", "")):
        (tmp_path / name).write_text(text)
        with pytest.raises(ValueError, match=name):
            read_datalist(tmp_path / name)


def test_splits_are_taken_or_made(tmp_path: Path) -> None:
    rows = [entry(k, label=k % 3) for k in range(12)]
    path = write_list(tmp_path, training=rows)
    sides = [{c["scan_id"] for c in cases(path, split, fold=1)} for split in ("training", "validation")]
    assert sorted(map(len, sides)) == [4, 8]
    assert not sides[0] & sides[1]
    own = write_list(tmp_path, training=rows, validation=[entry(20, label=0)])
    assert len(cases(own, "training", fold=2)) == 12
    assert [c["scan_id"] for c in cases(own, "validation")] == ["s20"]
    with pytest.raises(ValueError, match=r"split must be one of \['training', 'validation', 'all'\]"):
        cases(own, "test")


def test_caches_return_the_same_samples(tmp_path: Path) -> None:
    rows = [write_case(tmp_path, f"s{k}", label=k) for k in range(2)]
    pre = preprocessing(size=SIZE)
    kinds = {"none": Dataset, "memory": CacheDataset, "persistent": PersistentDataset}
    plain = [make_dataset(rows, pre, cache="none")[k] for k in range(2)]
    for kind, expected in kinds.items():
        dataset = make_dataset(rows, [pre], cache=kind, cache_dir=tmp_path / "p", progress=False)
        assert type(dataset) is expected
        for _ in range(2):
            for k in range(2):
                torch.testing.assert_close(dataset[k]["image"], plain[k]["image"])
                assert dataset[k]["scan_id"] == f"s{k}"
    with pytest.raises(ValueError, match="cache must be"):
        make_dataset(rows, pre, cache="disk")


@pytest.mark.parametrize("at_once", [True, False])
def test_only_the_random_part_runs_again(tmp_path: Path, at_once: bool) -> None:
    dataset = make_dataset([write_case(tmp_path)], [preprocessing(size=SIZE), augmentation()], progress=False)
    if at_once:
        fill_cache(dataset)
    else:
        dataset[0]
    (tmp_path / "s0" / "image.nii.gz").unlink()
    draws = [dataset[0]["image"] for _ in range(8)]
    assert any(not torch.equal(draws[0], draw) for draw in draws[1:])


def test_persistent_cache_follows_files_and_settings(tmp_path: Path) -> None:
    row = write_case(tmp_path)
    stored = tmp_path / "p"

    def entries(size: tuple[int, ...]) -> int:
        make_dataset([row], preprocessing(size=size), "persistent", stored)[0]
        return len(list(stored.glob("*.pt")))

    assert [entries(SIZE), entries(SIZE), entries((8, 8, 8))] == [1, 1, 2]
    write_case(tmp_path, mass=None)
    Path(row["image"]).touch()
    assert entries(SIZE) == 3


def test_label_that_is_a_mask_is_refused(tmp_path: Path) -> None:
    """MONAI Label hands out {"image": path, "label": path}."""
    case = {"image": "ct.nii.gz", "label": str(tmp_path / "label.nii.gz")}
    with pytest.raises(
        ValueError, match=r"case ct.nii.gz, key label: .* which is a file; label is the grade"
    ):
        make_dataset([case], preprocessing(size=SIZE), cache="none")
