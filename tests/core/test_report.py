import base64
import errno
import os
import re
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pytest
from matplotlib.figure import Figure
from medbundles.atomic import replacing, write_text
from medbundles.report import HtmlReport, save_figure, text_cells
from PIL import Image

VOID = {"meta", "img", "br", "hr", "link", "input"}
HOSTILE = """<script>alert("1 & 2")</script> 'quoted' \u2264"""


class Page(HTMLParser):
    """Checks that tags close in order and keeps elements, attributes and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[tuple[str, str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip():
            self.text.append((self.open[-1] if self.open else "", data))

    def attributes(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]

    def texts(self, tag):
        return [text for name, text in self.text if name == tag]


def drawing() -> Figure:
    figure = Figure(figsize=(3, 2))
    figure.subplots().plot([0, 1], [0, 1])
    return figure


@pytest.fixture
def page(tmp_path) -> Page:
    report = HtmlReport(f"Title {HOSTILE}", subtitle=f"Subtitle {HOSTILE}")
    report.heading(f"First {HOSTILE}")
    report.paragraph(f"One {HOSTILE}\n\nTwo")
    rows = [{"case": HOSTILE, "auc": 0.8126, "n": 12}, {"case": "b", "auc": float("nan"), "extra": -1.5}]
    report.table(rows, caption=f"Table {HOSTILE}")
    report.heading("Second")
    report.figure(drawing(), caption=f"Figure {HOSTILE}")
    return Page(report.save(tmp_path / "deep" / "report.html").read_text(encoding="utf-8"))


def test_text_is_escaped_everywhere_and_reads_back_unchanged(page):
    assert "script" not in {tag for tag, _ in page.elements}
    assert page.texts("h1") == [f"Title {HOSTILE}"]
    assert page.texts("p") == [f"Subtitle {HOSTILE}", f"One {HOSTILE}", "Two"]
    assert page.texts("h2") == [f"First {HOSTILE}", "Second"]
    assert page.texts("caption") == [f"Table {HOSTILE}"]
    assert page.texts("figcaption") == [f"Figure {HOSTILE}"]
    assert page.texts("td")[0] == HOSTILE
    assert page.attributes("img")[0]["alt"] == f"Figure {HOSTILE}"


def test_contents_link_to_the_headings(page):
    anchors = [attrs["id"] for attrs in page.attributes("h2")]
    assert [attrs["href"] for attrs in page.attributes("a")] == [f"#{anchor}" for anchor in anchors]
    assert len(set(anchors)) == 2


def test_headings_of_one_name_have_their_own_anchors(tmp_path):
    report = HtmlReport("t")
    report.heading("Same")
    report.heading("Same")
    ids = [attrs["id"] for attrs in Page(report.save(tmp_path / "r.html").read_text()).attributes("h2")]
    assert len(set(ids)) == 2


def test_table_aligns_numbers_and_fills_gaps_with_a_dash(page):
    assert page.texts("th") == ["case", "auc", "n", "extra"]
    assert [attrs.get("class") for attrs in page.attributes("th")] == [None, "n", "n", "n"]
    assert page.texts("td") == [HOSTILE, "0.813", "12", "–", "b", "–", "–", "-1.500"]


def test_the_file_needs_nothing_from_outside(page):
    targets = [v for _, attrs in page.elements for k, v in attrs.items() if k in ("src", "href") and v]
    assert all(target.startswith(("data:image/png;base64,", "#")) for target in targets)
    assert not {"link", "script", "iframe", "object"} & {tag for tag, _ in page.elements}
    css = "".join(page.texts("style"))
    assert "@import" not in css
    assert "url(" not in css


def test_figure_is_embedded_whole_and_shown_in_its_size_on_paper(page):
    (image,) = page.attributes("img")
    data = base64.b64decode(image["src"].split(",", 1)[1])
    assert Image.open(BytesIO(data)).size == (450, 300)  # 3 x 2 inches at 150 dpi
    assert image["width"] == "288"  # 3 inches of 96 CSS pixels


@pytest.mark.parametrize(("suffix", "media"), [("png", "image/png"), ("jpg", "image/jpeg")])
def test_image_files_are_embedded_byte_for_byte(tmp_path, suffix, media):
    path = tmp_path / f"picture.{suffix}"
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(path)
    report = HtmlReport("t")
    report.figure(path, "picture")
    (image,) = Page(report.save(tmp_path / "r.html").read_text()).attributes("img")
    head, data = image["src"].split(",", 1)
    assert head == f"data:{media};base64"
    assert base64.b64decode(data) == path.read_bytes()
    assert "width" not in image


def test_other_files_are_no_figures(tmp_path):
    path = tmp_path / "drawing.svg"
    path.write_text("<svg/>")
    with pytest.raises(ValueError, match=re.escape(str(path))):
        HtmlReport("t").figure(path)


def test_numpy_values_count_as_numbers_and_truth_values_do_not():
    rows = [{"a": np.float32(0.25), "b": np.int64(3), "c": True}, {"a": None, "b": 4, "c": False}]
    columns, numeric, cells = text_cells(rows, digits=2)
    assert columns == ["a", "b", "c"]
    assert numeric == [True, True, False]
    assert cells == [["0.25", "3", "True"], ["–", "4", "False"]]


def test_save_figure_writes_a_png(tmp_path):
    path = save_figure(drawing(), tmp_path / "a" / "f.png", dpi=50)
    assert Image.open(path).size == (150, 100)
    assert os.listdir(path.parent) == ["f.png"]


def test_a_full_disk_keeps_the_old_file_and_names_it(tmp_path, monkeypatch):
    path = write_text(tmp_path / "r.html", "old")

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=re.escape(f"cannot write {path}: No space left on device")) as caught:
        HtmlReport("new").save(path)
    assert caught.value.errno == errno.ENOSPC
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["r.html"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=re.escape(f"cannot write {tmp_path / 'file' / 'r.html'}")):
        HtmlReport("t").save(tmp_path / "file" / "r.html")


def test_an_interrupted_write_leaves_no_trace_and_keeps_suffixes(tmp_path):
    def interrupted():
        with replacing(tmp_path / "a.nii.gz") as temporary:
            assert temporary.name.endswith(".a.nii.gz")
            temporary.write_text("half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        interrupted()
    assert os.listdir(tmp_path) == []
