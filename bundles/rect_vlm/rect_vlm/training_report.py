"""The page a training leaves behind: every phase, what it trained, how it went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medbundles.figures import history_curves
from medbundles.report import HtmlReport
from medbundles.tables import write_json

from rect_vlm.phases import Phase

NOTE = (
    "Validation scans alone, on which the epochs were chosen. AUROC: mean over the findings that have both "
    "classes. Dice: mean over the lesions that are there. Label F1: findings in the written reports, read by "
    "the rule labeler, against those in the true ones. Score: the mean of those a phase trains."
)


def write_training_report(
    output_dir: Path, results: Sequence[Mapping[str, Any]], phases: Sequence[Phase]
) -> Path:
    """Write `<output_dir>/training.html` and `phases.json`: best metrics and curves of every phase."""
    write_json(output_dir / "phases.json", list(results))
    page = HtmlReport("ReCT-VLM training", ", ".join(f"phase {row['phase']}" for row in results))
    page.paragraph(NOTE)
    page.table(results, "Best epoch of every phase")
    for phase in phases:
        curves = history_curves(output_dir / f"{phase.stem}_history.jsonl", title=f"Phase {phase.name}")
        if curves is None:
            continue
        page.heading(f"Phase {phase.name}: trains {', '.join(phase.trains)}")
        page.figure(curves, f"Weighted loss terms and validation metrics of phase {phase.name}")
    return Path(page.save(output_dir / "training.html"))
