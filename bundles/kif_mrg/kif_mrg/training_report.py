"""The page a training run leaves behind: every round, how it went, which one was taken."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medbundles.figures import history_curves
from medbundles.report import HtmlReport
from medbundles.tables import write_json

from kif_mrg.phantom import SIMULATED

TERMS = ("loss", "lm", "cls", "seq", "rel")
NOTE = (
    "val_ce_f1: example-based F1 of the findings stated in the generated reports, read by the rule labeler, "
    "against those in the true reports; the best epoch and round were chosen on these validation cases."
)


def write_training_report(output_dir: Path, summary: Mapping[str, Any], simulated: bool = False) -> Path:
    """Write `<output_dir>/training.html` and `rounds.json`: metrics and learning curves of every round.

    With `simulated` the page says that the data are.
    """
    write_json(output_dir / "rounds.json", summary)
    rounds = len(summary["rounds"])
    title = f"{rounds} round{'s' if rounds > 1 else ''}, round {summary['best']} taken"
    page = HtmlReport("KIF-ISD training", title)
    for note in (SIMULATED, NOTE) if simulated else (NOTE,):
        page.paragraph(note)
    page.table(summary["rounds"], "Best epoch of every round, on the validation cases")
    for row in summary["rounds"]:
        name = f"round{row['round']}"
        curves = history_curves(output_dir / f"{name}_history.jsonl", TERMS, f"Round {row['round']}")
        if curves is None:
            continue
        taught = f"with round {row['round'] - 1} as teacher" if row["round"] else "without a teacher"
        page.heading(f"Round {row['round']}, {taught}")
        page.figure(curves, f"Weighted loss terms and validation metrics of round {row['round']}")
    return Path(page.save(output_dir / "training.html"))
