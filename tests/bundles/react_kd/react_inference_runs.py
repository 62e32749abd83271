"""Runs of inference.json in this process, and a student whose evidence is known, for tests of inference."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigWorkflow
from react_kd.networks import Student

BUNDLE = Path(__file__).parents[3] / "bundles" / "react_kd"
CONFIG = BUNDLE / "configs" / "inference.json"
NETWORK: dict[str, Any] = {
    "classes": 3,
    "channels": 32,
    "encoder_args": {"init_filters": 8, "blocks_down": [1, 1, 1]},
    "pool": "avgmax",
}
EXTREMES: dict[str, Any] = {
    "classes": 3,
    "channels": 2,
    "encoder_args": {"init_filters": 2, "blocks_down": [1]},
    "pool": "avgmax",
}


def random_weights(folder: Path, seed: int = 0) -> str:
    """Write model.pt for the network of inference.json and return its folder."""
    torch.manual_seed(seed)
    return _save(Student(**NETWORK), folder)


def extreme_seeking_weights(folder: Path) -> str:
    """Write model.pt of a student whose logits are the darkest (well) and the brightest voxel (poor)."""
    student = Student(**EXTREMES)
    state = {name: torch.zeros_like(value) for name, value in student.state_dict().items()}
    state["ct.stem.0.conv.weight"][:, 0, 1, 1, 1] = torch.tensor([1.0, -1.0])  # the CT and its negative
    state["fusion.project.0.weight"][:, :, 0, 0, 0] = torch.eye(2)
    state["head.classify.0.weight"] += 1
    state["head.classify.2.weight"][2, 2] = state["head.classify.2.weight"][0, 3] = 1  # of [mean; maximum]
    student.load_state_dict(state)
    return _save(student, folder)


def workflow(models: str, data: str | Path, out: Path, **overrides: Any) -> ConfigWorkflow:
    """The initialised inference workflow, without pictures unless asked for."""
    folders = {"ckpt_dir": models, "dataset_dir": str(data), "output_dir": str(out)}
    settings = {**folders, "bundle_root": str(BUNDLE), "overlays": False, **overrides}
    run = ConfigWorkflow(str(CONFIG), logging_file=False, workflow_type="inference", **settings)
    run.initialize()
    return run


def predict(models: str, data: str | Path, out: Path, **overrides: Any) -> dict[str, dict[str, Any]]:
    """Run inference.json and return the predictions by scan_id; raises what MONAI's config wraps."""
    run = workflow(models, data, out, **overrides)
    try:
        run.run()
    except RuntimeError as error:
        raise _cause(error) from None
    return predictions(out)


def predictions(out: Path) -> dict[str, dict[str, Any]]:
    """The rows of predictions.jsonl by scan_id; they must be those of the case folders and of the CSV."""
    rows = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    assert rows == [json.loads((out / row["scan_id"] / "prediction.json").read_text()) for row in rows]
    with (out / "predictions.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [line["scan_id"] for line in table] == [row["scan_id"] for row in rows]
    for line, row in zip(table, rows, strict=True):
        assert {key: float(line[f"prob_{key}"]) for key in row["probabilities"]} == row["probabilities"]
    return {row["scan_id"]: row for row in rows}


def _cause(error: BaseException) -> BaseException:
    while error.__cause__ is not None and str(error).startswith("Failed to "):
        error = error.__cause__
    return error


def _save(student: Student, folder: Path) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(student.state_dict(), folder / "model.pt")
    return str(folder)
