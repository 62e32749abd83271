"""inference.json on other input: folders, views, real radiographs; and which retrieved reports are read."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from kif_inference_runs import ALWAYS_POSITIVE, untrained, write_reports
from kif_mrg.case_images import ImageCases
from kif_mrg.conditions import AUXILIARY_CONDITIONS, CONDITIONS
from kif_mrg.images import read_image
from kif_mrg.memory_backends import AT_LEAST
from kif_mrg.transforms import eval_transform
from PIL import Image


def test_a_folder_and_a_single_image_are_input_too(models, folder, tmp_path) -> None:
    rows = write_reports(models, folder, tmp_path / "out")
    assert list(rows) == ["a.png", "b.PNG", "deep/c.png"]
    single = write_reports(models, folder / "deep" / "c.png", tmp_path / "single")
    assert single["c.png"]["report"] == rows["deep/c.png"]["report"]
    assert single["c.png"]["image"] == [str(folder / "deep" / "c.png")]


def test_no_case_reads_the_report_of_its_own_study(models, cohort, tmp_path) -> None:
    rows = write_reports(models, cohort, tmp_path / "out", split="train", retrieved=7)
    assert len(rows) == 8
    for row in rows.values():
        assert row["study_id"] not in row["retrieved"]


def test_only_a_network_that_reads_a_memory_misses_it(models, cohort, folder, tmp_path) -> None:
    copy = tmp_path / "models"
    shutil.copytree(models, copy)
    (copy / "memory.npz").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks memory\.npz"):
        write_reports(str(copy), folder, tmp_path / "out")
    without = {"network_def::use_memory": False}
    other = untrained(cohort, tmp_path / "other", **without)
    (tmp_path / "other" / "memory.npz").unlink()
    rows = write_reports(other, folder, tmp_path / "out", page_cases=1, **without)
    assert [row["retrieved"] for row in rows.values()] == [[], [], []]


def test_a_precomputed_memory_takes_the_rows_that_the_datalist_names(models, folder, tmp_path) -> None:
    copy = tmp_path / "models"
    shutil.copytree(models, copy)
    features = np.random.default_rng(0).normal(size=(3, 64)).astype(np.float32)
    np.savez(copy / "memory.npz", features=features, study_ids=np.array(["a", "b", "c"]))
    case = {"id": "1", "study_id": "b", "image_path": str(folder / "a.png"), "retrieved": [2, 1, 0]}
    datalist = tmp_path / "list.json"
    datalist.write_text(json.dumps([case]))
    rows = write_reports(str(copy), datalist, tmp_path / "out", page_cases=1)
    assert rows["1"]["retrieved"] == ["c", "a", "c", "a", "c"]  # its own study is left out
    datalist.write_text(json.dumps([{**case, "retrieved": [3]}]))
    with pytest.raises(ValueError, match=r"entry 1, key retrieved: .*0\.\.2, got \[3\]"):
        write_reports(str(copy), datalist, tmp_path / "out")


def test_two_views_make_one_report_and_one_page_entry(models, folder, tmp_path) -> None:
    datalist = tmp_path / "list.json"
    paths = [str(folder / "a.png"), str(folder / "b.PNG")]
    datalist.write_text(
        json.dumps([{"id": "both", "image_path": paths}, {"id": "one", "image_path": paths[:1]}])
    )
    rows = write_reports(models, datalist, tmp_path / "out", views=2, page_cases=2)
    assert rows["both"]["probabilities"] != rows["one"]["probabilities"]
    assert (tmp_path / "out" / "reports.html").read_text().count("<figure>") == 2


def test_conditions_without_a_label_in_training_are_neither_stated_nor_shown(
    models, folder, tmp_path
) -> None:
    copy = tmp_path / "models"
    shutil.copytree(models, copy)
    weights = torch.load(copy / "reporter.pt", weights_only=True)
    weights["labelled"][:14] = True
    torch.save(weights, copy / "reporter.pt")
    rows = write_reports(str(copy), folder, tmp_path / "out", page_cases=1)
    for row in rows.values():
        assert list(row["states"]) == list(row["probabilities"]) == list(CONDITIONS[:14])
    page = (tmp_path / "out" / "reports.html").read_text()
    assert not any(name.replace("_", " ") in page for name in AUXILIARY_CONDITIONS)


def test_retrieval_compares_a_large_jpeg_as_training_read_it(tmp_path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (1400, 1100), np.uint8)
    Image.fromarray(noise).save(tmp_path / "x.jpg")
    case = {"id": "x", "image_path": [str(tmp_path / "x.jpg")]}
    (picture,) = ImageCases([case], eval_transform(96, 104))[0]["pictures"]
    assert torch.equal(picture, read_image(tmp_path / "x.jpg", AT_LEAST))
    assert picture.shape == (3, 700, 550)


@pytest.mark.parametrize(("name", "count"), [("chest_xray_jpeg", 16), ("chest_xray_dicom", 1)])
def test_real_radiographs_are_input(models, sample, tmp_path, name, count) -> None:
    rows = write_reports(models, sample(name), tmp_path, page_cases=1)
    assert len(rows) == count
    assert len({row["probabilities"][ALWAYS_POSITIVE]["negative"] for row in rows.values()}) == count
    assert (tmp_path / "reports.html").is_file()
