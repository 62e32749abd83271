"""One run of the comparison, by the config of `run training`, and the config that examines it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from medbundles.atomic import replacing
from monai.bundle import ConfigParser

from rect_vlm.comparison.plan import (
    ARMS,
    FULL,
    Budget,
    Run,
    changed,
    config_entries,
    test_cohort,
    training_cohort,
)
from rect_vlm.phases import Phase, read_phases

MODEL = ("model_config", "network_def")  # evaluate.json reads these from a saved model


def training_folder(folder: Path, run: Run) -> Path:
    """Where a run keeps its weights (`models`), curves and page (`eval`)."""
    return folder / "trainings" / run.name


def training_config(folder: Path, budget: Budget, run: Run) -> ConfigParser:
    """train.json with what the budget and the arm change."""
    return changed(config_entries("train.json"), _changes(folder, budget, run))


def evaluation_config(folder: Path, budget: Budget, run: Run) -> ConfigParser:
    """evaluate.json over that, on the test cohort, with the model of train.json instead of a saved one."""
    laid_over = {key: value for key, value in config_entries("evaluate.json").items() if key not in MODEL}
    changes = {
        **_changes(folder, budget, run),
        "training_dir": training_cohort(budget, run.seed),
        "records#dataset_dir": "@training_dir",
        "preprocessing": "@validate#preprocessing",
    }
    config = changed(config_entries("train.json") | laid_over, changes)
    config["dataset_dir"] = test_cohort(budget)
    return config


def _changes(folder: Path, budget: Budget, run: Run) -> dict[str, Any]:
    place, arm = training_folder(folder, run), ARMS[run.arm]
    return {
        "ckpt_dir": str(place / "models"),
        "output_dir": str(place / "eval"),
        "seed": run.seed,
        "phases": list(arm.phases),
        "dataset_dir#seed": run.seed,
        "check_files": False,  # a simulated cohort is whole
        "add_generator#folder": str(folder / "language_models"),  # the same for all arms of a seed
        **budget.changes,
        **arm.changes,
    }


def train(folder: Path, budget: Budget, run: Run) -> None:
    """Train the phases of a run that are missing; one that was killed goes on in its epoch."""
    config = training_config(folder, budget, run)
    phases = phases_of(config)
    for name in ARMS[run.arm].shares:
        _take_over(folder, run, phases[name])
    config.get_parsed_content("training")


def phases_of(config: ConfigParser) -> dict[str, Phase]:
    """The phases by name."""
    return read_phases(config.get_parsed_content("phase_table"))


def _take_over(folder: Path, run: Run, phase: Phase) -> None:
    name = f"{phase.stem}.pt"
    models = training_folder(folder, run) / "models"
    models.mkdir(parents=True, exist_ok=True)
    with replacing(models / name) as temporary:
        shutil.copyfile(training_folder(folder, Run(FULL, run.seed)) / "models" / name, temporary)
