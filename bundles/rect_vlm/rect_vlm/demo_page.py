"""The demo page in Gradio: choose a CT, have it read, scroll through it. Imported by the command alone."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from medbundles.errors import without_wrappers
from medbundles.precision import Precision

from rect_vlm import demo_text as texts
from rect_vlm.demo_scan import Reading, Scan, read_scan
from rect_vlm.demo_slices import PLANES, WINDOWS, best_slice, slice_count, slice_html
from rect_vlm.demo_upload import Case, plain_message, uploaded_case
from rect_vlm.findings import LESIONS, lesion_title
from rect_vlm.model import ReCTVLM
from rect_vlm.slice_figures import OUTLINES

logger = logging.getLogger(__name__)

STYLE = Path(__file__).with_name("demo.css")
KEPT_SECONDS = 3600  # of scans and uploads that nobody looks at any more
WAITING = 16  # scans in the queue; more are refused
QUIET: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}


@dataclass(frozen=True)
class Reader:
    """What reads the scans of all visitors, one at a time.

    samples: cases to choose from; store: folder for the files of scans, each in one of its own.
    """

    model: ReCTVLM
    precision: Precision
    how: Reading
    samples: Sequence[Case]
    store: Path

    def read(self, files: Sequence[str], sample: str | None, progress: Any) -> Scan:
        """Read uploaded files, or a sample where there are none; errors have messages fit for the page."""
        folder = Path(tempfile.mkdtemp(dir=self.store))
        upload = folder / "upload"
        upload.mkdir()
        try:
            chosen = next((case for case in self.samples if not files and case["id"] == sample), None)
            case = dict(chosen) if chosen else uploaded_case(files, upload)
            case = {key: value for key, value in case.items() if key not in ("report", "labels")}
            scan = read_scan(
                self.model, self.precision, case, folder, self.how,
                lambda share, step: progress(share, desc=step),
            )  # fmt: skip
        except Exception as error:
            shutil.rmtree(folder, ignore_errors=True)
            cause = without_wrappers(error)
            if not isinstance(cause, ValueError | OSError | ImportError):
                logger.exception("a scan could not be read")
                raise ValueError(f"unexpected {type(cause).__name__}, see the log of the demo") from error
            raise ValueError(plain_message(cause, files, upload)) from error
        shutil.rmtree(upload)
        return scan


def build_page(reader: Reader) -> gr.Blocks:
    """The page; `style` is its look."""
    with gr.Blocks(
        title=texts.TITLE,
        analytics_enabled=False,
        fill_width=True,
        delete_cache=(KEPT_SECONDS // 4, KEPT_SECONDS),
    ) as page:
        gr.HTML(f'<div class="heading"><h1>{texts.TITLE}</h1><p>{texts.DISCLAIMER}</p></div>')
        scan = gr.State(time_to_live=KEPT_SECONDS, delete_callback=_forget)
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=360):
                upload, sample, button, status = _choice(reader)
                with gr.Column(visible=False) as found:
                    findings = gr.HTML(elem_id="findings", apply_default_css=False)
            with gr.Column(scale=5, visible=False) as shown:
                viewer = _viewer()
        with gr.Row(visible=False, equal_height=False) as told:
            texts_of = _told(reader)
        hidden = [found, shown, told]
        outputs = [scan, status, *hidden, *viewer, findings, *texts_of]

        def read(
            files: list[str] | None, name: str | None, before: Scan | None,
            progress: gr.Progress = gr.Progress(),  # noqa: B008 - how Gradio hands it over
        ) -> list[Any]:  # fmt: skip
            _forget(before)
            try:
                result = reader.read(files or [], name, progress)
            except ValueError as error:
                hide = [gr.update(visible=False)] * len(hidden)
                rest = [gr.skip()] * (len(outputs) - 2 - len(hidden))
                return [None, texts.error_html(str(error)), *hide, *rest]
            show = [gr.update(visible=True)] * len(hidden)
            values = [*_shown(result), *_told_values(result, reader)]
            return [result, texts.done_html(result.row), *show, *values]

        button.click(
            read, [upload, sample, scan], outputs, concurrency_limit=1, show_progress_on=[status],
            api_visibility="private",
        )  # fmt: skip
        _choose(upload, sample, button)
        _scroll(scan, *viewer)
    page.queue(max_size=WAITING)
    return page


def style() -> dict[str, Any]:
    """Theme and CSS of the page: fonts of the reader's machine, nothing from the network."""
    sans = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
    mono = ("ui-monospace", "Consolas", "monospace")
    switches = "".join(
        f"#lesions label:nth-of-type({i}) {{ border-left: 6px solid {OUTLINES[lesion]}; }}\n"
        for i, lesion in enumerate(LESIONS, start=1)
    )
    theme = gr.themes.Base(primary_hue="blue", neutral_hue="slate", font=sans, font_mono=mono)
    return {"theme": theme, "css": STYLE.read_text(encoding="utf-8") + switches}


def _choice(reader: Reader) -> tuple[gr.File, gr.Dropdown, gr.Button, gr.HTML]:
    upload = gr.File(
        label="Chest CT", file_count="multiple", elem_id="upload", height=150
    )  # fmt: skip
    gr.HTML(f'<p class="hint">{texts.FORMATS}</p>')
    names = [case["id"] for case in reader.samples]
    sample = gr.Dropdown(
        names, value=None, label="or a sample scan", visible=bool(names), elem_id="sample"
    )  # fmt: skip
    button = gr.Button("Read scan", variant="primary", interactive=False, elem_id="read")
    return upload, sample, button, gr.HTML(elem_id="status", min_height=48, apply_default_css=False)


def _choose(upload: gr.File, sample: gr.Dropdown, button: gr.Button) -> None:
    """Upload or sample, the later choice; the button waits until there is one, all of it uploaded."""

    def ready() -> tuple[None, Any]:
        return None, gr.update(interactive=True)

    upload.upload(ready, None, [sample, button], **QUIET)
    sample.input(ready, None, [upload, button], **QUIET)
    upload.clear(lambda: gr.update(interactive=False), None, button, **QUIET)


def _viewer() -> tuple[Any, ...]:
    with gr.Row():
        plane = gr.Radio(
            list(PLANES), value="Axial", label="Plane", elem_id="plane", scale=4, min_width=320
        )  # fmt: skip
        window = gr.Radio(
            list(WINDOWS), value="Lung", label="Window", elem_id="window", scale=4, min_width=320
        )  # fmt: skip
        jump = gr.Dropdown([], label="Go to", elem_id="jump", scale=2, min_width=180)
    picture = gr.HTML(elem_id="picture", apply_default_css=False)
    index = gr.Slider(1, 2, 1, step=1, label="Slice", elem_id="slice", buttons=[])
    lesions = gr.CheckboxGroup([], label="Outlines", elem_id="lesions")
    return plane, window, jump, picture, index, lesions


def _told(reader: Reader) -> tuple[Any, ...]:
    with gr.Column(scale=1, min_width=380):
        report = gr.Textbox(
            label="Report" if reader.how.report else texts.NO_REPORT, lines=8 if reader.how.report else 1,
            max_lines=20, interactive=False, buttons=["copy"], elem_id="report",
        )  # fmt: skip
        with gr.Row():
            files = [
                gr.DownloadButton(name, size="sm", elem_id=f"download_{key}", min_width=110)
                for key, name in texts.DOWNLOADS.items()
            ]
    with gr.Column(scale=1, min_width=380):
        lesions = gr.HTML(elem_id="lesion_table", apply_default_css=False)
        with gr.Accordion("What the language model was told besides the image", open=False):
            evidence = gr.HTML(elem_id="evidence", apply_default_css=False)
    return report, *files, lesions, evidence


def _shown(scan: Scan) -> list[Any]:
    """Values of `_viewer` for a new scan."""
    there = scan.outlined
    first = best_slice(scan, "Axial")
    return [
        "Axial",
        "Lung",
        gr.update(choices=[(lesion_title(lesion), lesion) for lesion in there], value=None),
        slice_html(scan, "Axial", first, "Lung", there),
        _slider(scan, "Axial", first),
        gr.update(choices=texts.lesion_choices(scan.row), value=there),
    ]


def _told_values(scan: Scan, reader: Reader) -> list[Any]:
    """Values of the findings and of `_told`."""
    limits = reader.model.limits(reader.how.finding_threshold)
    return [
        texts.findings_html(scan.row, limits), scan.row["report"] or "",
        *map(str, scan.files), texts.lesions_html(scan.row), texts.evidence_html(scan.row),
    ]  # fmt: skip


def _scroll(scan: Any, plane: Any, window: Any, jump: Any, picture: Any, index: Any, lesions: Any) -> None:
    """Redraw the slice whenever something about it changes."""

    def draw(scan: Scan | None, plane: str, index: float, window: str, lesions: list[str]) -> Any:
        return slice_html(scan, plane, int(index) - 1, window, lesions) if scan else texts.PUT_AWAY

    def turn(scan: Scan | None, plane: str, lesion: str | None) -> Any:
        return _slider(scan, plane, best_slice(scan, plane, lesion)) if scan else gr.skip()

    seen = [scan, plane, index, window, lesions]
    for event in (plane.input, jump.input):
        event(turn, [scan, plane, jump], index, **QUIET).then(draw, seen, picture, **QUIET)
    for event in (index.input, window.input, lesions.input):
        event(draw, seen, picture, trigger_mode="always_last", **QUIET)


def _slider(scan: Scan, plane: str, index: int) -> Any:
    label = f"Slice, {PLANES[plane].scroll}"
    return gr.update(maximum=slice_count(scan, plane), value=index + 1, label=label)


def _forget(scan: Scan | None) -> None:
    if scan is not None:
        scan.forget()
