"""The demo without Gradio: what may be uploaded, what is read of it, which errors come."""

from __future__ import annotations

import json
import re
import socket
import sys
import zipfile

import nibabel as nib
import numpy as np
import pytest
import torch
from medbundles.precision import Precision
from rect_dicom_files import ct_series
from rect_tiny_ctrate import SPACING, chest, save
from rect_tiny_model import tiny_model
from rect_vlm.demo import demo
from rect_vlm.demo_scan import Reading, read_scan
from rect_vlm.demo_text import findings_html
from rect_vlm.demo_upload import plain_message, uploaded_case
from rect_vlm.findings import FINDINGS
from rect_vlm.volume_input import read_volume

CPU = Precision("cpu", "off")


def test_a_file_a_zip_and_loose_slices_are_the_same_ct(tmp_path) -> None:
    hu = chest()[0]
    slices = ct_series(tmp_path / "series", hu[::-1, ::-1], (SPACING,) * 3, (0, 0, 0))
    with zipfile.ZipFile(tmp_path / "my scan (1).zip", "w") as archive:
        for path in slices:
            archive.write(path, f"deep/{path.name}")
        archive.writestr("__MACOSX/._000.dcm", "x")
    zipped, loose, single = (tmp_path / name for name in ("zipped", "loose", "single"))
    for folder in (zipped, loose, single):
        folder.mkdir()
    whole = save(tmp_path / "a.nii.gz", hu)
    cases = [
        uploaded_case([tmp_path / "my scan (1).zip"], zipped), uploaded_case(slices, loose),
        uploaded_case([whole], single),
    ]  # fmt: skip
    assert [case["id"] for case in cases] == ["my_scan_1", "000", "a"]
    volumes = [read_volume(case["image"]).as_tensor().sort().values.flatten().sort().values for case in cases]
    assert torch.equal(volumes[0], volumes[1])
    assert torch.equal(volumes[0], volumes[2])


def test_uploads_that_are_no_ct_are_refused_in_words(tmp_path) -> None:
    (tmp_path / "photo.png").write_bytes(b"\x89PNG")
    chests = [save(tmp_path / f"{name}.nii.gz", chest()[0]) for name in "ab"]
    for name, members in (("two.zip", chests), ("none.zip", [tmp_path / "photo.png"])):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for member in members:
                archive.write(member, member.name)
    (tmp_path / "broken.zip").write_bytes(b"PK")
    for names, complaint in (
        ([], "choose a CT first"),
        (["photo.png"], "got photo.png"),
        (["a.nii.gz", "b.nii.gz"], "got a.nii.gz among 2 files"),
        (["two.zip"], "two.zip must hold one CT, it has 2: a, b"),
        (["none.zip"], "none.zip holds no CT"),
        (["broken.zip"], "must be a zip"),
    ):
        folder = tmp_path / f"for_{len(names)}_{names and names[0]}"
        folder.mkdir()
        with pytest.raises(ValueError, match=re.escape(complaint)) as caught:
            uploaded_case([tmp_path / name for name in names], folder)
        assert str(tmp_path) not in plain_message(caught.value, [tmp_path / name for name in names], folder)


def test_a_scan_is_read_as_inference_reads_it_and_leaves_no_files(tmp_path) -> None:
    image = save(tmp_path / "a.nii.gz", chest()[0], "PSR")
    model, steps, store = tiny_model(generator=None), [], tmp_path / "store"
    case = {"id": "a", "image": str(image), "intensity": "hu"}
    how = Reading(report=False)
    scan = read_scan(model, CPU, case, store, how, lambda share, step: steps.append((share, step)))
    truth = model.predict(str(image), generate_report=False)
    np.testing.assert_allclose(
        list(scan.row["findings"].values()), truth["classification"]["probabilities"][0], rtol=1e-3
    )
    stored = nib.load(image)
    for lesion, masks in truth["localization"]["binary_masks"].items():
        expected = nib.Nifti1Image(masks[0].numpy(), stored.affine)
        np.testing.assert_array_equal(
            scan.mask(lesion), np.asarray(nib.as_closest_canonical(expected).dataobj)
        )
        volume = float(masks[0].sum()) * SPACING**3 / 1000
        assert scan.row["lesions"][lesion]["volume_ml"] == pytest.approx(volume, abs=1e-3)
    assert scan.outlined
    np.testing.assert_array_equal(scan.hu, chest()[0])
    assert [share for share, _ in steps] == sorted(share for share, _ in steps)
    report, masks, told = scan.files
    assert nib.load(masks).shape == stored.shape
    assert json.loads(told.read_text())["image"] == "a.nii.gz"
    assert report.is_file()
    scan.forget()
    assert not store.exists()


def test_findings_go_by_the_thresholds_of_the_model_or_by_the_number_asked_for(tmp_path) -> None:
    case = {"id": "a", "image": str(save(tmp_path / "a.nii.gz", chest()[0])), "intensity": "hu"}
    model, names = tiny_model(generator=None), list(FINDINGS)
    validated = tuple(float(number % 2) for number in range(len(names)))  # 0 and 1: all or none
    for thresholds, asked, present in (
        (validated, None, names[::2]), (validated, 0.0, names), (validated, 1.0, []),
        (None, None, [name for name, value in _chances(model, case).items() if value > 0.5]),
    ):  # fmt: skip
        model.thresholds = thresholds
        how = Reading(asked, report=False)
        row = read_scan(model, CPU, case, tmp_path / f"store_{asked}_{thresholds is None}", how).row
        assert row["present"] == present
        told = {name for name in names for line in row["evidence"] if f"{name} (classifier)" in line}
        assert told <= set(present)
        page = findings_html(row, model.limits(how.finding_threshold))
        assert page.count('class="present"') == len(present)
        above = "their thresholds" if thresholds and asked is None else f"{0.5 if asked is None else asked:g}"
        assert f"{len(present)} of 18 findings above {above};" in page
    assert "--limit:50.0%" in page


def _chances(model, case) -> dict[str, float]:
    found = model.classify(case["image"])["probabilities"][0].tolist()
    return dict(zip(FINDINGS, found, strict=True))


def test_the_command_says_what_is_missing(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("rect_vlm.demo.PACKAGES", ("json", "no_such_package"))
    with pytest.raises(ImportError, match=r"missing here: no_such_package; .* 'medbundles\[demo\]'"):
        demo(str(tmp_path))
    monkeypatch.setattr("rect_vlm.demo.PACKAGES", ())
    with pytest.raises(FileNotFoundError, match=r"no trained model in .*: train one with `python -m monai"):
        demo(str(tmp_path / "nothing"))
    tiny_model(generator=None).save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match="without a report generator; go on without by --report False"):
        demo(str(tmp_path / "model"))
    with pytest.raises(ValueError, match="threshold must lie in"):
        demo(str(tmp_path / "model"), report=False, mask_threshold=2)
    with pytest.raises(ValueError, match="threshold must lie in"):
        demo(str(tmp_path / "model"), report=False, finding_threshold=2)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"cannot listen at 127.0.0.1 port {port}: .*--port"):
            demo(str(tmp_path / "model"), report=False, port=port)
    assert "gradio" not in sys.modules
