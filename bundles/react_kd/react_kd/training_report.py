"""The page a training run leaves behind: what was trained, how it went, where it ended."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medbundles.figures import learning_curves
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
        path = output_dir / f"{name}_history.jsonl"
        if not path.is_file():
            continue
        history = [json.loads(line) for line in path.read_text().splitlines()]
        losses = [term for term in TERMS if term in history[0]]
        metrics = list(dict.fromkeys(key for epoch in history for key in epoch if key.startswith("val_")))
        report.heading(f"Training of the {name}")
        report.figure(
            learning_curves(
                history, losses=losses, metrics=metrics, title=name.capitalize(), subtitle=summary["cohort"]
            ),
            f"Loss terms and validation metrics of the {name}",
        )
    return Path(report.save(output_dir / "training.html"))
