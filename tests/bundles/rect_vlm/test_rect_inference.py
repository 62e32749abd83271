"""inference.json on CT files: what it writes, that it agrees with the Python API, and what a kill leaves."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from rect_dicom_files import ct_series
from rect_inference_runs import array, predict, save_model, workflow, write_chests
from rect_llm import tiny_folder
from rect_tiny_ctrate import GEOMETRY, SPACING, chest, save
from rect_tiny_model import trained_model
from rect_vlm.case_volumes import CaseVolumes
from rect_vlm.findings import FINDINGS, LESIONS
from rect_vlm.model import ReCTVLM

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("models"))


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of the cases whose files were read, in that order."""
    ids: list[str] = []
    original = CaseVolumes._transform

    def counting(self: CaseVolumes, index: int) -> dict:
        ids.append(self.data[index]["id"])
        return original(self, index)

    monkeypatch.setattr(CaseVolumes, "_transform", counting)
    return ids


def test_files_findings_and_reports_are_those_of_the_python_api(tmp_path) -> None:
    llm = tiny_folder(tmp_path / "llm")
    trained_model(llm).save_pretrained(tmp_path / "models" / "rect_vlm")
    data = write_chests(tmp_path / "data", "a", "deep/b")
    lobes = save(tmp_path / "data" / "deep" / "mask.nii.gz", chest()[2])
    run = workflow(
        tmp_path / "models", data, tmp_path / "out", report=True, pictures=True, page_cases=1,
        max_new_tokens=12, probability_maps=True, finding_threshold=0.4,
    )  # fmt: skip
    assert run.check_properties() == []
    run.run()
    model = ReCTVLM.from_pretrained(tmp_path / "models" / "rect_vlm")
    search = {"do_sample": False, "max_new_tokens": 12}
    for name, volume, mask in (("a", "a", None), ("deep_b", "deep/b", lobes)):
        row = json.loads((tmp_path / "out" / name / "prediction.json").read_text())
        image = data / f"{volume}.nii.gz"
        said = model.predict(image, mask, classification_threshold=0.4, report_generation_config=search)
        wanted = said["classification"]["probabilities"][0].tolist()
        assert list(row["findings"].values()) == pytest.approx(wanted, rel=1e-3)
        assert list(row["findings"]) == list(FINDINGS)
        assert row["present"] == said["classification"]["disease_names"][0]
        assert row["report"] == said["reports"][0]
        assert row["segmentation"] == (None if mask is None else str(mask))
        assert [note.split(":")[0] for note in row["notes"]] == (
            ["no segmentation of the anatomy"] if mask is None else []
        )
        header, labels = nib.load(image), nib.load(tmp_path / "out" / name / "lesions.nii.gz")
        assert labels.get_data_dtype() == np.uint8
        assert labels.shape == header.shape
        np.testing.assert_allclose(labels.affine, header.affine, atol=1e-4)
        masks = torch.stack([said["localization"]["masks"][lesion][0] for lesion in LESIONS]).numpy()
        best = np.where(masks.max(axis=0) > 0.5, masks.argmax(axis=0) + 1, 0)
        assert (array(tmp_path / "out" / name / "lesions.nii.gz") == best).mean() > 0.999
        assert (best > 0).any()
        for lesion, mask_of in zip(LESIONS, masks, strict=True):
            volume_ml = float((mask_of > 0.5).sum()) * SPACING**3 / 1000
            assert row["lesions"][lesion]["volume_ml"] == pytest.approx(volume_ml, rel=0.01, abs=1)
            stored = array(tmp_path / "out" / name / "probabilities" / f"{lesion}.nii.gz")
            np.testing.assert_allclose(stored, mask_of, atol=1e-3)
            told = row["lesions"][lesion]["location"]
            assert told is None or any(line.endswith(f"detected in {told}") for line in row["evidence"])
        assert (tmp_path / "out" / name / "slices.jpg").read_bytes().startswith(b"\xff\xd8\xff")
    page = (tmp_path / "out" / "predictions.html").read_text()
    assert page.count("<figure>") == 2
    assert "1 of 2 CTs" in page
    assert "http" not in page.replace("http-equiv", "")


def test_a_dicom_series_gets_masks_on_its_own_slices(models, tmp_path) -> None:
    hu = chest()[0][::-1, ::-1]  # to the left, to the back, to the head
    ct_series(tmp_path / "scan", hu, (SPACING,) * 3, (-100.0, -50.0, 20.0))
    row = predict(models, tmp_path / "scan", tmp_path / "out")["scan"]
    labels = nib.load(tmp_path / "out" / "scan" / "lesions.nii.gz")
    assert labels.shape == hu.shape
    np.testing.assert_allclose(labels.affine[:3, 3], [100, 50, 20], atol=1e-3)  # RAS
    assert nib.aff2axcodes(labels.affine) == ("L", "P", "S")
    twin = save(tmp_path / "twin.nii.gz", np.ascontiguousarray(hu[::-1, ::-1]))
    same = predict(models, twin, tmp_path / "out2")["twin"]
    assert list(same["findings"].values()) == pytest.approx(list(row["findings"].values()), abs=2e-3)
    assert (array(tmp_path / "out" / "scan" / "lesions.nii.gz") > 0).any()


def test_finished_cases_are_skipped_until_something_changes(models, tmp_path, read) -> None:
    data, out = write_chests(tmp_path / "data", "a"), tmp_path / "out"

    def done(source: Path = data, weights: Path = models, **overrides: object) -> list[str]:
        read.clear()
        predict(weights, source, out, **overrides)
        return list(read)

    assert done() == ["a"]
    write_chests(data, "c", "b")
    assert done() == ["b", "c"]
    assert done() == []
    assert done(overwrite=True) == ["a", "b", "c"]
    shutil.copy(data / "c.nii.gz", data / "a.nii.gz")
    assert done() == ["a"]
    (out / "b" / "prediction.json").write_text('{"id"')
    (out / "c" / "lesions.nii.gz").unlink()
    assert done() == ["b", "c"]
    assert done(data / "a.nii.gz", pictures=True) == ["a"]
    assert done(data / "a.nii.gz", pictures=True) == []
    assert done() == []
    assert done(mask_threshold=0.6) == ["a", "b", "c"]
    other = save_model(tmp_path / "other", seed=1)
    assert done(weights=other, mask_threshold=0.6) == ["a", "b", "c"]


def test_a_broken_ct_is_listed_and_the_others_go_on(models, tmp_path) -> None:
    data, out = write_chests(tmp_path / "data", "a", "b", "c"), tmp_path / "out"
    good = (data / "b.nii.gz").read_bytes()
    (data / "b.nii.gz").write_bytes(good[: len(good) // 2])
    save(data / "c.nii.gz", np.clip(chest()[0], 0, 255).astype(np.uint8))
    with pytest.raises(RuntimeError, match=r"2 of 3 cases failed, see .*failed\.json; first b .*b\.nii\.gz"):
        predict(models, data, out, page_cases=9)
    failed = json.loads((out / "failed.json").read_text())
    assert [entry["id"] for entry in failed] == ["b", "c"]
    assert 'intensity="uint8_window"' in failed[1]["error"]
    assert "1 CTs" in (out / "predictions.html").read_text()
    (data / "b.nii.gz").write_bytes(good)
    (data / "c.nii.gz").unlink()
    assert list(predict(models, data, out)) == ["a", "b"]
    assert not (out / "failed.json").exists()
    assert not (out / "predictions.html").exists()


def test_a_missing_model_names_the_command_that_trains_one(tmp_path) -> None:
    data = write_chests(tmp_path / "data", "a")
    with pytest.raises(FileNotFoundError, match=r"no trained model in .*models/rect_vlm.*run training"):
        predict(tmp_path / "models", data, tmp_path / "out")
    assert not (tmp_path / "out" / "predictions.jsonl").exists()


def test_a_model_that_writes_nothing_is_told_before_the_first_case(models, tmp_path, read) -> None:
    data = write_chests(tmp_path / "data", "a")
    with pytest.raises(ValueError, match=r"saved without a report generator.*--report False"):
        predict(models, data, tmp_path / "out", report=True)
    assert read == []


def test_the_network_follows_the_saved_model_and_else_the_metadata(models, tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)  # neither needs a language model
    data = write_chests(tmp_path / "data", "a")
    trained = workflow(models, data, tmp_path / "out")
    assert trained.network_def.vision.img_size == GEOMETRY.img_size
    assert trained.dataset[0]["image"].shape == (1, *GEOMETRY.img_size)
    fresh = workflow(tmp_path / "none", data, tmp_path / "out")
    assert fresh.check_properties() == []
    formats = json.loads((Path(fresh.bundle_root) / "configs" / "metadata.json").read_text())
    ends = (("inputs", "image"), ("outputs", "pred"))
    sizes = [formats["network_data_format"][side][key] for side, key in ends]
    (one, *grid), (channels, *same) = ([s["num_channels"], *s["spatial_shape"]] for s in sizes)
    assert grid == same == list(fresh.network_def.vision.img_size)
    assert (one, channels) == (1, len(LESIONS))
    assert list(sizes[1]["channel_def"].values()) == [lesion.replace("_", " ") for lesion in LESIONS]


def test_a_part_of_the_scan_that_the_model_does_not_see_is_told(models, tmp_path) -> None:
    tall = np.concatenate([chest()[0]] * 2, axis=2)  # 480 mm, of which the model sees 256
    save(tmp_path / "data" / "tall.nii.gz", tall)
    row = predict(models, tmp_path / "data", tmp_path / "out")["tall"]
    assert "around the middle of the scan, 53% of it" in row["notes"][1]


def test_the_text_false_is_not_taken_for_true(models, tmp_path) -> None:
    data, out = write_chests(tmp_path / "data", "a"), tmp_path / "out"
    row = predict(models, data, out, report="false", pictures="false", do_sample="false")["a"]
    assert row["report"] is None
    assert not (out / "a" / "slices.jpg").exists()
    with pytest.raises(ValueError, match="overwrite must be true or false, got 'no'"):
        predict(models, data, out, overwrite="no")


def test_findings_go_by_the_thresholds_of_the_model(models, tmp_path) -> None:
    data, known = write_chests(tmp_path / "data", "a"), tmp_path / "models"
    shutil.copytree(models, known)
    found = predict(known, data, tmp_path / "out", report=False)["a"]["findings"]
    limits = {name: found[name] / 2 if number % 2 else 1.0 for number, name in enumerate(FINDINGS)}
    (known / "rect_vlm" / "thresholds.json").write_text(json.dumps(limits))
    row = predict(known, data, tmp_path / "out", report=False)["a"]
    assert row["present"] == list(FINDINGS)[1::2]
    assert not {line for line in row["evidence"] for name in FINDINGS[::2] if f"{name} (classifier)" in line}
    assert predict(known, data, tmp_path / "out", report=False, finding_threshold=1.0)["a"]["present"] == []
