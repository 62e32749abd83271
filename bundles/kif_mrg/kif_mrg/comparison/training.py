"""One training of the comparison, by the config of `run training`, and its reporter put together again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from medbundles.engines.checkpointing import load_weights
from monai.bundle import ConfigParser

from kif_mrg.comparison.plan import ARMS, TRAININGS, Budget, Run, config_file, training_cohort
from kif_mrg.memory import ReportMemory
from kif_mrg.networks import KifReporter


def training_folder(folder: Path, name: str, seed: int) -> Path:
    """Where a training keeps its weights (`models`), curves and page (`eval`)."""
    return folder / "trainings" / f"{name}-seed{seed}"


def training_config(place: Path, budget: Budget, name: str, seed: int) -> ConfigParser:
    """train.json with what the budget and this training change."""
    training = TRAININGS[name]
    config = ConfigParser(ConfigParser.load_config_file(config_file()))
    config.update(
        {
            "dataset_dir": training_cohort(budget, seed),
            "ckpt_dir": str(place / "models"),
            "output_dir": str(place / "eval"),
            "seed": seed,
            "rounds": training.rounds,
            **budget.changes,
            **training.changes,
        }
    )
    return config


def train(place: Path, budget: Budget, name: str, seed: int) -> None:
    """Run every round that is missing; a training that was killed goes on in its epoch."""
    training_config(place, budget, name, seed).get_parsed_content("training")


def is_trained(place: Path) -> bool:
    """Whether all rounds are complete: their table is what a training writes last."""
    return _rounds(place).is_file()


def trained_arm(place: Path, config: ConfigParser, run: Run) -> tuple[KifReporter, ReportMemory | None]:
    """The reporter of a run with its best weights, in eval mode, and the report memory it reads."""
    memory = config.get_parsed_content("memory")
    if memory is not None:
        memory.ensure()
    reporter = config.get_parsed_content("reporter")
    load_weights(reporter, place / "models" / f"round{ARMS[run.arm].round}.pt", run.name)
    return reporter.eval(), memory


def validated(place: Path, run: Run) -> dict[str, Any]:
    """Best epoch of the run's round and its metric on the validation cases."""
    row = json.loads(_rounds(place).read_text())["rounds"][ARMS[run.arm].round]
    return {key: row[key] for key in ("val_ce_f1", "epoch")}


def _rounds(place: Path) -> Path:
    return place / "eval" / "rounds.json"
