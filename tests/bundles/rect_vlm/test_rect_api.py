"""The promised Python API, line by line, and what comes back from it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import rect_tiny_ctrate as tiny
import torch
from rect_dicom_files import ct_series
from rect_llm import tiny_folder
from rect_tiny_model import trained_model
from rect_vlm import ReCTVLM
from rect_vlm.findings import FINDINGS, LESIONS


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two scans with their lobes, the first also as a DICOM series; a language model; a saved model."""
    root = tmp_path_factory.mktemp("api")
    for i in range(2):
        hu, _, lobes = tiny.chest(seed=i)
        tiny.save(root / f"ct_{i}.nii.gz", hu)
        tiny.save(root / f"seg_{i}.nii.gz", lobes)
    lps = nib.load(root / "ct_0.nii.gz")
    origin = np.diag([-1, -1, 1]) @ lps.affine[:3, 3]
    ct_series(root / "series", np.asanyarray(lps.dataobj), (tiny.SPACING,) * 3, origin)
    trained_model(tiny_folder(root)).save_pretrained(root / "model")
    return root


@pytest.fixture(scope="module")
def model(files: Path) -> ReCTVLM:
    return ReCTVLM.from_pretrained(files / "model")


def test_the_promised_snippets(files: Path, tmp_path: Path) -> None:
    model = ReCTVLM.from_pretrained(files / "model")
    ct_volume = nib.load(files / "ct_0.nii.gz").get_fdata()
    seg_mask = nib.load(files / "seg_0.nii.gz").get_fdata()

    predictions = model.predict(ct_volume=ct_volume, segmentation_mask=seg_mask, generate_report=True)
    assert set(predictions["classification"]["disease_names"][0]) <= set(FINDINGS)
    assert tuple(predictions["localization"]["masks"].keys()) == LESIONS
    assert isinstance(predictions["reports"][0], str)

    found = model.classify(ct_volume, threshold=0.5)
    assert set(found["disease_names"][0]) <= set(FINDINGS)

    lesion_masks = model.localize_lesions(ct_volume, seg_mask)
    for lesion, mask in lesion_masks.items():
        assert lesion in LESIONS
        assert mask.shape == ct_volume.shape
        assert 0 <= mask.sum() <= ct_volume.size

    report = model.generate_report(ct_volume, seg_mask, max_new_tokens=8, temperature=0.7)
    assert isinstance(report, str)

    results = model.predict(
        ct_volume=ct_volume,
        segmentation_mask=seg_mask,
        generate_report=False,
        classification_threshold=0.0,
        localization_threshold=0.5,
    )
    assert results["classification"]["disease_names"] == [list(FINDINGS)]
    assert results["reports"] is None
    model.save_pretrained(tmp_path / "copy")
    again = ReCTVLM.from_pretrained(tmp_path / "copy").classify(ct_volume)
    assert torch.equal(again["probabilities"], found["probabilities"])


def test_every_kind_of_volume_is_the_same_scan(model: ReCTVLM, files: Path) -> None:
    image = nib.load(files / "ct_0.nii.gz")
    kinds = [files / "ct_0.nii.gz", str(files / "ct_0.nii.gz"), image, files / "series"]
    said = [model.classify(kind)["probabilities"] for kind in kinds]
    said.append(model.classify(image.get_fdata(), affine=image.affine)["probabilities"])
    for other in said[1:]:
        assert torch.allclose(other, said[0], atol=1e-5)
    other = model.classify(files / "ct_1.nii.gz")["probabilities"]
    assert not torch.allclose(other, said[0], atol=1e-5)


def test_shapes_and_types_of_a_prediction(model: ReCTVLM, files: Path) -> None:
    scans, shape = [files / "ct_0.nii.gz", files / "ct_1.nii.gz"], (2, *tiny.SHAPE)
    out = model.predict(
        scans,
        [files / "seg_0.nii.gz", None],
        localization_threshold=0.4,
        report_generation_config={"max_new_tokens": 4, "do_sample": False},
    )
    found = out["classification"]
    assert found["probabilities"].shape == (2, 18)
    assert found["predictions"].dtype == torch.int64
    assert torch.equal(found["predictions"], (found["probabilities"] > 0.5).long())
    for lesion, mask in out["localization"]["masks"].items():
        assert mask.shape == shape
        assert 0 <= mask.min() <= mask.max() <= 1
        binary = out["localization"]["binary_masks"][lesion]
        assert binary.dtype == torch.uint8
        assert torch.equal(binary, (mask > 0.4).to(torch.uint8))
    assert len(out["reports"]) == 2
    one = model.classify(scans[1])["probabilities"]
    assert torch.allclose(one[0], found["probabilities"][1], atol=1e-5)


def test_findings_and_masks_need_no_language_model(files: Path, tmp_path: Path) -> None:
    shutil.copytree(files / "model", tmp_path / "model")
    gone = ReCTVLM.from_pretrained(tmp_path / "model", llm=tmp_path / "gone")
    out = gone.predict(files / "ct_0.nii.gz", generate_report=False)
    assert out["classification"]["probabilities"].isfinite().all()
    with pytest.raises(ValueError, match="gone"):
        gone.generate_report(files / "ct_0.nii.gz")


def test_components_that_were_left_out(files: Path) -> None:
    part = ReCTVLM.from_pretrained(files / "model", components=("vision", "classifier"))
    assert part.localizer is None
    assert part.classify(files / "ct_0.nii.gz")["probabilities"].shape == (1, 18)
    with pytest.raises(ValueError, match="no localizer"):
        part.localize_lesions(files / "ct_0.nii.gz")
    with pytest.raises(ValueError, match=r"got \['visoin'\]"):
        ReCTVLM.from_pretrained(files / "model", components=("visoin",))


def test_classifying_imports_no_adapters_and_no_quantisation(files: Path) -> None:
    program = (
        "import sys, rect_vlm\n"
        "assert not {'monai', 'peft', 'bitsandbytes'} & set(sys.modules)\n"
        f"model = rect_vlm.ReCTVLM.from_pretrained({str(files / 'model')!r})\n"
        f"model.classify({str(files / 'ct_0.nii.gz')!r})\n"
        "assert not {'peft', 'bitsandbytes', 'rect_vlm.generator'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_lower_arithmetic_says_nearly_the_same(model: ReCTVLM, files: Path) -> None:
    half = ReCTVLM.from_pretrained(files / "model", dtype=torch.bfloat16)
    short = {"max_new_tokens": 4}
    out, same = (
        m.predict(files / "ct_0.nii.gz", generate_report=m is half, report_generation_config=short)
        for m in (half, model)
    )
    assert out["classification"]["probabilities"].dtype == torch.float32
    assert torch.allclose(
        out["classification"]["probabilities"], same["classification"]["probabilities"], atol=0.05
    )
    assert next(half.generator.llm.parameters()).dtype == torch.bfloat16
