"""The figures of the comparison."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from medbundles.figure_style import COLORS, INK, MARKERS, SOFT, frame, legend, quiet
from medbundles.figures import comparison_forest
from medbundles.intervals import Entry
from medbundles.report import save_figure
from medbundles.resampling import Floats

from rect_vlm import evaluation_floors as floors
from rect_vlm.comparison.plan import ARMS, FULL
from rect_vlm.comparison.results import Results, difference
from rect_vlm.comparison.tables import F1
from rect_vlm.evaluation_figures import arm_bars
from rect_vlm.evaluation_results import ALL

SUBTITLE = "simulated cohort; independent test scans"
COMPARED = {
    ("1.1", "auroc/macro"): "macro AUROC, phase 1.1",
    ("1.2", f"dice/{ALL}"): "Dice, phase 1.2",
    ("2", f"reports/{floors.MODEL}/{F1}"): "clinical F1, joint phase",
}
SHOWN = (floors.MODEL, floors.SHUFFLED, floors.CONSTANT, floors.COMMON, floors.RANDOM, floors.REFERENCES)


def write_figures(folder: Path, results: Results) -> list[Path]:
    """Write every figure there is something to show in, as PNG."""
    made = {
        "ablations": ablation_figure(results),
        "findings": finding_figure(results),
        "reports": report_figure(results),
    }
    return [
        save_figure(figure, folder / f"{name}.png") for name, figure in made.items() if figure is not None
    ]


def ablation_figure(results: Results) -> Figure | None:
    """Paired differences of the arms to the full method, a panel per measure; None without another arm."""
    panels: dict[str, dict[str, Floats]] = {}
    for (phase, path), title in COMPARED.items():
        for name, arm in ARMS.items():
            if name != FULL and phase in arm.phases and results.seeds_of(name):
                own, whole = (results.values(which, phase, path) for which in (name, FULL))
                panels.setdefault(title, {})[name] = np.array(list(difference(own, whole).values()))
    if not panels:
        return None
    return comparison_forest(
        panels, reference=FULL, n_runs=len(results.seeds), metric="score", subtitle=SUBTITLE
    )


def finding_figure(results: Results) -> Figure:
    """AUROC of each finding in every seed, of phase 1.1 and of the joint phase; sorted by the latter."""
    findings = [name for name in results.paths("2", "auroc/") if name != "macro"]
    table = {
        phase: np.stack([results.values(FULL, phase, f"auroc/{name}") for name in findings])
        for phase in ("1.1", "2")
    }  # (K, seeds)
    order = np.argsort(-np.nan_to_num(table["2"].mean(1), nan=-1))
    figure, (ax,) = frame("AUROC of each finding", SUBTITLE, 0.6 + 0.24 * len(findings))
    for i, (phase, values) in enumerate(table.items()):
        rows = np.repeat(np.arange(len(findings)) + (i - 0.5) * 0.3, values.shape[1])
        look: dict[str, Any] = {"color": COLORS[i], "marker": MARKERS[i], "s": 18, "lw": 0}
        ax.scatter(values[order].ravel(), rows, label="joint phase" if phase == "2" else "phase 1.1", **look)
    ax.axvline(0.5, color=SOFT, lw=1, ls=":")
    ax.set_yticks(range(len(findings)), [findings[k] for k in order], color=INK)
    ax.set(ylim=(len(findings) - 0.4, -0.6))
    quiet(ax, "AUROC, a mark per seed", grid="x")
    legend(ax, loc="lower left")
    return figure


def report_figure(results: Results) -> Figure | None:
    """Clinical F1, BLEU-4 and ROUGE-L of the reports and of the floors, means and ranges over the seeds."""
    metrics = {F1: "clinical F1", "bleu4": "BLEU-4", "rouge_l": "ROUGE-L"}
    arms = {
        name: {
            score: _range(results.values(FULL, "2", f"reports/{name}/{score}"))
            for score in metrics
            if score in results.paths("2", f"reports/{name}/")
        }
        for name in SHOWN
    }
    if not arms[floors.MODEL]:
        return None
    subtitle = f"{SUBTITLE}; lines: lowest and highest of {len(results.seeds)} seeds"
    return arm_bars(arms, metrics, "Reports and floors, joint phase", subtitle)


def _range(values: Floats) -> Entry:
    return {"value": float(values.mean()), "low": float(values.min()), "high": float(values.max())}
