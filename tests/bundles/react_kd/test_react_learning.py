"""Minutes long: with the default settings teacher and student learn what the simulated cohort holds."""

from __future__ import annotations

import json
from pathlib import Path

import medbundles
import pytest
from react_kd.phantom import simulated_cohort


@pytest.mark.slow
def test_default_settings_learn_the_simulated_cohort(tmp_path: Path) -> None:
    """Bounds leave a margin of 0.1 to one measured run (teacher 0.87, PET/CT 0.93, CT 0.70)."""
    folders = {
        "dataset_dir": simulated_cohort(tmp_path / "cohort"),
        "ckpt_dir": str(tmp_path / "models"),
        "output_dir": str(tmp_path / "eval"),
    }
    for name in ("training", "evaluate"):
        workflow = medbundles.load("react_kd", name, **folders)
        workflow.initialize()
        workflow.run()
    results = json.loads((tmp_path / "eval" / "evaluation" / "metrics.json").read_text())["results"]
    auc = {(r["network"], r["condition"]): r["metrics"]["auc_macro"]["value"] for r in results}
    assert auc["teacher", "petct"] > 0.77
    assert auc["student", "petct"] > 0.82
    assert auc["student", "ct"] > 0.59
    assert auc["student", "petct"] > auc["student", "ct"]
