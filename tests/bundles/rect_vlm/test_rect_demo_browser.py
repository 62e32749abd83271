"""The demo in headless Chromium: a real chest CT is uploaded, read, scrolled and downloaded."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import nibabel as nib
import numpy as np
import pytest
from rect_demo_server import browser_page, chromium, served
from rect_llm import REPORTS
from rect_tiny_model import trained_model
from rect_vlm.findings import FINDINGS, LESIONS
from rect_vlm.tiny_llm import tiny_llm

MISSING = [name for name in ("gradio", "playwright") if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"needs {' and '.join(MISSING)} (make demo)"),
    pytest.mark.skipif(chromium() is None, reason="needs Chromium, on the path or named by CHROMIUM"),
]
PICTURES = os.environ.get("DEMO_PICTURES")  # a folder: the pictures of the docs are written there
MODEL = os.environ.get("DEMO_MODEL")  # a trained model for them


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, list[str], Path]]:
    """Address of the demo of a tiny model, what browsers asked for, and its folder."""
    folder = tmp_path_factory.mktemp("demo")
    model = Path(MODEL) if MODEL else folder / "rect_vlm"
    if not MODEL:
        llm = tiny_llm(REPORTS, folder / "llm", steps=40, progress=False)  # says something
        trained_model(llm).save_pretrained(model)
    tokens = "512" if MODEL else "12"
    with served(folder, "--model", str(model), "--max_new_tokens", tokens) as url:
        yield url, [], folder
    assert not list((folder / "temporary").glob("rect_vlm_demo_*"))


@pytest.fixture
def page(address: tuple[str, list[str], Path], tmp_path: Path) -> Iterator[Any]:
    url, asked, _ = address
    with browser_page(tmp_path / "profile", asked) as page:
        page.goto(url)
        page.wait_for_selector("#read")
        yield page
    assert asked
    outside = [one for one in asked if urlparse(one).scheme in ("http", "https") and not one.startswith(url)]
    assert outside == []


def read(page: Any, file: Path, wanted: str) -> str:
    """Upload a file, press the button, wait for `done` or `error`, and return what the page says."""
    page.set_input_files("#upload input[type=file]", str(file))
    page.wait_for_selector(f"#upload >> text={file.name.split('.')[0]}")
    page.click("#read")
    page.wait_for_selector(f"#status .{wanted}")
    return page.inner_text("#status")


def picture(page: Any) -> str:
    return page.get_attribute("#picture img", "src")


def changed(page: Any, before: str, act: Callable[[], Any]) -> str:
    """The picture after an action that must change it."""
    act()
    page.wait_for_function("before => document.querySelector('#picture img').src !== before", arg=before)
    return picture(page)


def shoot(page: Any, name: str) -> None:
    if PICTURES:
        page.wait_for_timeout(500)
        page.screenshot(path=Path(PICTURES) / f"demo_{name}.png", full_page=True)


def downloaded(page: Any, name: str, folder: Path) -> Path:
    with page.expect_download() as waiting:
        page.click(f"#download_{name}")
    place = folder / waiting.value.suggested_filename
    waiting.value.save_as(place)
    return place


def test_a_real_ct_is_read_scrolled_and_downloaded(page, sample, tmp_path) -> None:
    ct = sample("chest_ct") / "cxr.nii.gz"
    assert "not a medical device" in page.inner_text("body")
    assert ct.name in read(page, ct, "done")
    page.wait_for_selector("#findings tr")
    shoot(page, "findings")
    rows = page.eval_on_selector_all("#findings tr", "rows => rows.map(row => row.innerText)")
    assert {row.split("\t")[0].strip() for row in rows} == set(FINDINGS)
    values = [float(row.split("\t")[1]) for row in rows]
    assert values == sorted(values, reverse=True)

    first = picture(page)
    slider = page.locator("#slice input[type=range]")
    slider.focus()
    second = changed(page, first, lambda: slider.press("ArrowRight"))
    boxes = page.locator("#lesions input[type=checkbox]")
    assert boxes.count() == len(LESIONS)
    marked = [i for i in range(boxes.count()) if boxes.nth(i).is_checked()]
    assert marked
    assert changed(page, second, lambda: [boxes.nth(i).uncheck() for i in marked]) != first
    bare = picture(page)
    assert changed(page, bare, lambda: page.check("#window input[value=Mediastinum]")) != bare
    changed(page, picture(page), lambda: page.check("#plane input[value=Coronal]"))
    page.wait_for_selector('#picture img[alt^="Coronal"]')
    changed(page, picture(page), lambda: boxes.nth(marked[0]).check())

    report = page.input_value("#report textarea")
    assert report.strip()
    assert downloaded(page, "report", tmp_path).read_text().strip() == report.strip()
    masks, image = nib.load(downloaded(page, "masks", tmp_path)), nib.load(ct)
    assert masks.shape == image.shape
    np.testing.assert_allclose(masks.affine, image.affine, atol=1e-4)
    row = json.loads(downloaded(page, "json", tmp_path).read_text())
    assert row["report"].strip() == report.strip()
    assert row["image"] == ct.name
    labels = set(np.unique(np.asarray(masks.dataobj))) - {0}
    assert labels <= {k for k, name in enumerate(LESIONS, 1) if row["lesions"][name]["volume_ml"] > 0}
    assert labels


def test_a_flat_image_is_refused_in_words(page, tmp_path) -> None:
    flat = tmp_path / "flat.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros((64, 64), np.int16), np.eye(4)), flat)
    told = read(page, flat, "error")
    shoot(page, "error")
    assert "flat.nii.gz: must be a 3-D volume" in told
    assert "got shape (64, 64" in told
    assert "Traceback" not in told
    assert str(tmp_path.parent) not in told
    assert not page.is_visible("#picture")
