"""A comparison of a few scans, epochs and weights."""

from __future__ import annotations

from pathlib import Path

from rect_training_runs import numbers
from rect_vlm.comparison.plan import Budget

TABLE = {f"phase_table#{phase}#epochs": 1 for phase in ("1.1", "1.2", "1.3", "2")}
GRPO = {"steps": 1, "validate_every": 1, "studies": 2, "group": 2, "max_tokens": 4}
CHANGES = {
    "dataset_dir#train": 6, "dataset_dir#valid": 3, "device": "cpu", "amp": "off", "val_reports": 2,
    "max_new_tokens": 8, "phase_table#3#options": GRPO, **TABLE,
}  # fmt: skip
TINY = Budget(seeds=1, test=3, changes={**CHANGES, "model_config": numbers(Path("tiny"))})
