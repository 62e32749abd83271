"""The page of one inference run: each radiograph with its findings, the evidence for them, and the report."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from medbundles.report import FIGURE_DPI, HtmlReport
from torch import Tensor

from kif_mrg.explain import Evidence

SHOWN_REPORTS = 5
NOT_MENTIONED = "not mentioned"  # what the state "blank" means
Row = dict[str, Any]

READING = """Large picture: the whole image; the dashed frame is what the network sees of it. Beside it are \
two maps of that frame for each of up to four findings: those stated positive, the most probable first, \
filled up to three with the most probable of the others. P is the probability of the state positive.

Attention: the weight with which a patch of the image reads the finding's node of the knowledge graph when \
the features that the report is written from are formed, mean of all layers and heads. The weights of one \
patch sum to 1 over the 28 nodes, so even attention is 0.036. Brightness runs from 0 to the largest weight \
of the map; an even glow means that the node is read alike everywhere. Conditions that the graph has no \
node for have no such map.

Grad-CAM of [POS]: the patches weighted with the gradient of the finding's positive logit (Selvaraju et \
al., ICCV 2017). It shows where the image raises that logit, the finding's and not its negation's. What \
the retrieved reports add to the logit has no place in the image and is not shown. Each map is scaled to \
its own maximum: brightness cannot be compared between findings or cases, and an improbable finding has a \
bright map too. A dark map means that no patch raises the logit.

The maps are only as fine as the grid of patches and drawn smoothly between the patches' centres. Both \
show what this network used. Neither shows where disease is, and the decoder that words the report may \
attend elsewhere. Probabilities are those of the network and are not calibrated."""


@dataclass(frozen=True)
class CaseView:
    """Everything the page shows of one case."""

    row: Row  # its line of reports.jsonl
    pictures: Sequence[Tensor]  # per view (3, H, W) in 0..1, top row first
    evidence: Sequence[Evidence]
    retrieved: Sequence[Row]  # study id and report, nearest first
    reference: str | None = None  # a report that came with the case


def write_page(path: str | Path, cases: Sequence[CaseView], total: int, field: float) -> Path:
    """Write the page and return its path; no network is needed to read it.

    Args:
        path: HTML file.
        cases: in the order of the page.
        total: cases in the run, of which `cases` are shown.
        field: share of a picture's shorter side that the network sees (centre crop after resizing).
    """
    shown = (
        f"{len(cases)} of {total} cases; all are in reports.jsonl" if len(cases) < total else f"{total} cases"
    )
    page = HtmlReport(
        "Chest X-ray reports", f"{shown}. Written by a network for research, not for diagnosis."
    )
    page.heading("How to read this page")
    page.paragraph(READING)
    for case in cases:
        _add_case(page, case, field)
    return page.save(path)


def _add_case(page: HtmlReport, case: CaseView, field: float) -> None:
    from kif_mrg.case_figure import case_figure

    name, row = str(case.row["id"]), case.row
    page.heading(name)
    drawn = ", ".join(readable_name(evidence.condition) for evidence in case.evidence)
    grid = " × ".join(map(str, case.evidence[0].grad_cam.shape[1:]))
    titles = [_title(row, evidence.condition) for evidence in case.evidence]
    with TemporaryDirectory() as folder:
        picture = Path(folder) / "case.jpg"  # a seventh of what PNG needs for a radiograph
        case_figure(case.pictures, case.evidence, titles, field).savefig(
            picture, dpi=FIGURE_DPI, pil_kwargs={"quality": 88}
        )
        page.figure(
            picture,
            f"{name}: the image, and the evidence for {drawn} on {grid} patches. Top: attention of the "
            "patches to the finding's graph node. Below: Grad-CAM of the positive logit.",
        )
    page.paragraph(f"Report: {readable(row['report']) or '(empty)'}")
    if case.reference:
        page.paragraph(f"Report that came with the image: {readable(case.reference)}")
    page.table(_finding_rows(case), "Findings: all that are stated, and those with evidence above", digits=2)
    if case.retrieved:
        shown = case.retrieved[:SHOWN_REPORTS]
        page.table(
            [{"study": entry["study"], "report": readable(entry["report"])} for entry in shown],
            "Reports of similar images that the diagnosis also read, nearest first "
            f"({len(shown)} of {len(case.retrieved)})",
        )


def _title(row: Row, condition: str) -> str:
    chance, state = row["probabilities"][condition]["positive"], row["states"][condition]
    stated = NOT_MENTIONED if state == "blank" else f"stated {state}"
    return f"{readable_name(condition)}\n{stated} (P {chance:.2f})"


def _finding_rows(case: CaseView) -> list[Row]:
    states, chances = case.row["states"], case.row["probabilities"]
    shown = {evidence.condition for evidence in case.evidence}
    kept = [name for name in states if name in shown or states[name] != "blank"]
    kept.sort(key=lambda name: -chances[name]["positive"])
    return [
        {
            "condition": readable_name(name),
            "stated": NOT_MENTIONED if states[name] == "blank" else states[name],
            **{f"P({state})": chances[name][state] for state in ("positive", "negative", "uncertain")},
            f"P({NOT_MENTIONED})": chances[name]["blank"],
        }
        for name in kept
    ]


def readable(report: str) -> str:
    """A cleaned report as sentences: `lungs clear . heart normal .` becomes `Lungs clear. Heart normal.`"""
    sentences = [sentence.strip() for sentence in re.split(r"\s\.(?:\s|$)", f"{report} ")]
    return " ".join(f"{s[0].upper()}{s[1:]}" + "." * (not s.endswith(".")) for s in sentences if s)


def readable_name(condition: str) -> str:
    """`pleural_effusion` as `pleural effusion`."""
    return condition.replace("_", " ")
