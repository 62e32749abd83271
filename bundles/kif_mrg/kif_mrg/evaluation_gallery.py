"""Cases to look at: the image, both reports, and the clinical facts in which they differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from medbundles.report import HtmlReport
from medbundles.text.assertion import NEGATIVE, POSITIVE, UNCERTAIN
from medbundles.text.labeler import BLANK, CHEXPERT_CONDITIONS
from numpy.typing import NDArray

from kif_mrg import evaluation_floors as floors
from kif_mrg.case_figure import shrunk
from kif_mrg.case_page import readable, readable_name
from kif_mrg.evaluated import Evaluated
from kif_mrg.images import read_image
from kif_mrg.inference import STATE_NAMES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIDE = 2.6  # inches of a picture on the page
GALLERY = """The cases are not chosen for their looks. All cases are ordered by the F1 of their own report, \
then by how many of the 14 states agree: the first third of those below are the worst of all, the others \
stand at even distances in the rest of the order. The facts are those of the labeler, which reads neither \
sides nor sizes: differences in these are to be seen in the texts only."""


def worst_and_spread(order: Sequence[int], n: int) -> list[int]:
    """Of cases ordered from the worst, the first third of `n` and the others evenly spread over the rest."""
    n = min(n, len(order))
    worst = n // 3
    rest = np.linspace(worst, len(order) - 1, n - worst).round().astype(int)
    return [order[i] for i in (*range(worst), *rest.tolist())]


def differing_facts(reference: Sequence[int], report: Sequence[int]) -> list[dict[str, str]]:
    """The conditions whose states (14,) in reference and report differ, with the kind of the difference."""
    return [
        {
            "condition": readable_name(name),
            "reference": _state(true),
            "report": _state(said),
            "difference": difference(true, said),
        }
        for name, true, said in zip(CHEXPERT_CONDITIONS, reference, report, strict=True)
        if true != said
    ]


def difference(true: int, said: int) -> str:
    """What it means that a reference gives a condition the state `true` and a report the state `said`."""
    if true == BLANK:
        return {POSITIVE: "invented", UNCERTAIN: "suspected without ground", NEGATIVE: "denied unasked"}[said]
    if said == BLANK:
        return "denial left out" if true == NEGATIVE else "missed"
    if NEGATIVE in (true, said):
        return "contradicted"
    return "other certainty"


def add_gallery(page: HtmlReport, found: Evaluated, f1: NDArray, n: int) -> None:
    """Add up to `n` cases to the page, given the F1 (N,) of each; an OSError names an unreadable image."""
    from tqdm import tqdm

    agreeing = (found.states[floors.MODEL] == found.compare.true).sum(axis=1)
    order = np.lexsort((agreeing, f1)).tolist()  # the last key counts most
    page.heading("Cases")
    page.paragraph(GALLERY)
    for place in tqdm(worst_and_spread(order, n), desc="cases on the page", ncols=110):
        _add_case(page, found, place, float(f1[place]))


def _add_case(page: HtmlReport, found: Evaluated, place: int, f1: float) -> None:
    record, true, said = found.records[place], found.compare.true[place], found.states[floors.MODEL][place]
    page.figure(_pictures(record["image_path"], found.views), f"{record['id']}: F1 of the report {f1:.2f}")
    page.paragraph(f"Reference: {readable(found.compare.references[place]) or '(empty)'}")
    page.paragraph(f"Report: {readable(found.reports[floors.MODEL][place]) or '(empty)'}")
    both = [
        readable_name(name) + (" (uncertain)" if a == UNCERTAIN else "")
        for name, a, b in zip(CHEXPERT_CONDITIONS, true, said, strict=True)
        if a == b and a in (POSITIVE, UNCERTAIN)
    ]
    page.paragraph(f"Findings of both: {', '.join(both) or 'none'}.")
    differing = differing_facts(true.tolist(), said.tolist())
    if differing:
        page.table(differing, f"{record['id']}: clinical facts that differ")
    else:
        page.paragraph("No clinical fact differs.")


def _pictures(paths: Sequence[str], views: int) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    pictures = [shrunk(read_image(path)) for path in paths[:views]]
    widths = [SIDE * picture.shape[1] / picture.shape[0] for picture in pictures]
    figure = Figure(figsize=(sum(widths), SIDE))
    FigureCanvasAgg(figure)
    left = 0.0
    for picture, width in zip(pictures, widths, strict=True):
        ax = figure.add_axes((left / sum(widths), 0, width / sum(widths), 1))
        ax.imshow(picture, cmap="gray", vmin=0, vmax=1, aspect="auto")
        ax.set_axis_off()
        left += width
    return figure


def _state(state: Any) -> str:
    return "not mentioned" if state == BLANK else STATE_NAMES[int(state)]
