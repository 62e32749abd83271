"""A small cohort in real files with random weights beside it, and the evaluate workflow on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import react_kd
import torch
from monai.bundle import ConfigParser, ConfigWorkflow
from react_case_files import LIVER, ct, pet, write_case

CONFIGS = Path(react_kd.__file__).parents[1] / "configs"
FILES = [str(CONFIGS / "train.json"), str(CONFIGS / "evaluate.json")]
LEVELS, MODELS = [None, 1e5, 5e2], ["beer_lambert", "linear"]
SIZE = (16, 16, 8)
NO_PET = {"pet_fdg": None, "pet_act": None}


def workflow(folder: Path, **overrides: Any) -> ConfigWorkflow:
    small = {
        "size": list(SIZE),
        "dose_levels": LEVELS,
        "noise_models": MODELS,
        "n_bootstrap": 25,
        "amp": "off",
    }
    places = {name: str(folder / name) for name in ("dataset_dir", "ckpt_dir", "output_dir")}
    return ConfigWorkflow(FILES, logging_file=False, workflow_type="infer", **(small | places | overrides))


def run(folder: Path, **overrides: Any) -> Path:
    """Evaluate and return the folder of the results."""
    flow = workflow(folder, **overrides)
    flow.initialize()
    flow.run()
    return Path(overrides.get("output_dir", folder / "output_dir")) / "evaluation"


def networks() -> dict[str, torch.nn.Module]:
    """Student and teacher of train.json, with random weights, by the name of their checkpoint."""
    parser = ConfigParser()
    parser.read_config(FILES[0])
    return {
        "model": parser.get_parsed_content("network_def"),
        "teacher": parser.get_parsed_content("teacher"),
    }


def write_cohort(folder: Path) -> None:
    """Seven graded test cases of six patients (two without PET) and an ungraded one; three external CTs."""
    data, rng = folder / "dataset_dir", np.random.default_rng(0)

    def case(scan: str, label: int | None, **changes: Any) -> dict[str, Any]:
        arrays = {
            "image": (ct() + 30 * rng.standard_normal() * LIVER + rng.normal(0, 15, LIVER.shape)).astype(
                np.int16
            )
        }
        arrays |= {key: (pet() * rng.uniform(0.5, 2, pet().shape)).astype(np.float32) for key in NO_PET}
        return write_case(data, scan, label, **(arrays | changes))

    test = [case(f"s{i}", i % 3, **(NO_PET if i > 4 else {})) for i in range(7)] + [case("ungraded", None)]
    test[1]["patient_id"] = test[4]["patient_id"]
    external = [case(f"x{i}", i % 3, **NO_PET) for i in range(3)]
    splits = {"test": test, "external": external, "training": [case("t", 0)], "validation": [case("v", None)]}
    (data / "datalist.json").write_text(json.dumps({"name": "made-up livers", **splits}))
    (folder / "ckpt_dir").mkdir()
    torch.manual_seed(3)
    for name, network in networks().items():
        torch.save(network.state_dict(), folder / "ckpt_dir" / f"{name}.pt")
