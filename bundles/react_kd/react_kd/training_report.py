"""The page a training run leaves behind: what was trained, how it went, where it ended."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medbundles.figures import history_curves
from medbundles.report import HtmlReport

TERMS = ("loss", "fused", "function", "dose", "task", "logits", "node", "edge", "gw")


def write_training_report(output_dir: Path, summary: Mapping[str, Any]) -> Path:
    """Write `<output_dir>/training.html`: validation metrics and learning curves of both networks."""
    report = HtmlReport("REACT-KD training", summary["cohort"])
    report.heading("Validation")
    report.table(
        [{"network": name, **summary[name]} for name in ("teacher", "student")],
        "val_auc: teacher with all streams, student with CT alone; the best epoch was chosen on these cases",
    )
    for name in ("teacher", "student"):
        curves = history_curves(
            output_dir / f"{name}_history.jsonl", TERMS, name.capitalize(), summary["cohort"]
        )
        if curves is None:
            continue
        report.heading(f"Training of the {name}")
        report.figure(curves, f"Loss terms and validation metrics of the {name}")
    return Path(report.save(output_dir / "training.html"))
