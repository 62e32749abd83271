"""What the comparison runs: arms, phases and sizes, fixed before anything is compared."""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from medbundles.fingerprint import digest
from medbundles.registry import get
from monai.bundle import ConfigParser

from rect_vlm import phantom
from rect_vlm.comparison.code_version import code_digest
from rect_vlm.phases import ORDER
from rect_vlm.text_cache import text_encoder_folder

TEST_SEED = 9001  # one independent test cohort for all runs
FULL = "full"


@dataclass(frozen=True)
class Arm:
    """A model that is compared: ids of train.json with another value, and the phases that are trained.

    title: what it lacks. shares: phases that its changes do not touch, taken from the full run of the seed.
    """

    title: str
    phases: tuple[str, ...]
    changes: Mapping[str, Any] = field(default_factory=dict)
    shares: tuple[str, ...] = ()


ARMS: dict[str, Arm] = {
    FULL: Arm("nothing", ORDER),
    "no_slice_bias": Arm(
        "the bias of attention by slice distance",
        ("1.1", "1.2"),
        {"model_config#vision#slice_bias": False},
    ),
    "no_regions": Arm(
        "attention to anatomical regions and their embedding in the patches",
        ("1.1", "1.2"),
        {"model_config#vision#region_attention": False},
    ),
    "no_text_guidance": Arm(
        "the descriptions of the lesions: a learned vector for each instead",
        ("1.2",),
        {"model_config#localizer#text_guidance": False},
        shares=("1.1",),
    ),
    "no_evidence": Arm(
        "the lines of evidence in the prompt of the language model",
        ("1.3", "2"),
        {"model_config#generator#evidence": "none"},
        shares=("1.1", "1.2"),
    ),
}


@dataclass(frozen=True)
class Budget:
    """Sizes of the comparison, the same for all arms; all else is as in the configs, but for `changes`."""

    seeds: int = 3
    test: int = 96
    changes: Mapping[str, Any] = field(default_factory=dict)


BUDGETS = {"full": Budget(), "short": Budget(seeds=1)}


@dataclass(frozen=True)
class Run:
    """An arm on the cohort of one seed, which also seeds its training."""

    arm: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.arm}-seed{self.seed}"


def waves(budget: Budget) -> tuple[list[Run], list[Run]]:
    """All runs, longest first: those that stand alone, and those that begin with phases of a full run."""
    every = [Run(arm, seed) for arm in ARMS for seed in range(budget.seeds)]
    return [run for run in every if not ARMS[run.arm].shares], [run for run in every if ARMS[run.arm].shares]


def run_file(folder: Path, run: Run) -> Path:
    """Where the fingerprint and the scores of a run are kept."""
    return folder / "runs" / f"{run.name}.json"


def config_entries(*names: str) -> dict[str, Any]:
    """The entries of configs of this bundle without their comments; a later one wins."""
    merged: dict[str, Any] = {}
    for name in names:
        text = (get("rect_vlm").root / "configs" / name).read_text(encoding="utf-8")
        merged |= json.loads(text, object_pairs_hook=_without_comments)
    return merged


def _without_comments(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {key: value for key, value in pairs if key != "_desc_"}


def changed(entries: Mapping[str, Any], changes: Mapping[str, Any]) -> ConfigParser:
    """A config with other values for some ids, also for ids that it does not have."""
    config = ConfigParser(dict(entries))
    for key, value in changes.items():
        config.set(deepcopy(value), key)
    return config


def training_cohort(budget: Budget, seed: int) -> str:
    """Folder of the training and validation scans of a seed, as many as train.json has."""
    changes = {key: value for key, value in budget.changes.items() if key.startswith("dataset_dir#")}
    config = changed(config_entries("train.json"), {**changes, "dataset_dir#seed": seed})
    return str(config.get_parsed_content("dataset_dir"))


def test_cohort(budget: Budget) -> str:
    """Folder of the independent test scans."""
    return phantom.simulated_cohort(TEST_SEED, train=0, valid=budget.test)


def fingerprint(budget: Budget, run: Run) -> dict[str, Any]:
    """Everything that the result of a run depends on; kept beside it."""
    arm = ARMS[run.arm]
    settings = config_entries("train.json", "evaluate.json")
    model = changed(config_entries("train.json"), budget.changes)["model_config"]
    made = {
        "arm": {"phases": arm.phases, "changes": arm.changes, "shares": arm.shares},
        "changes": budget.changes,
        "seed": run.seed,
        "cohort": _cohort_plan(training_cohort(budget, run.seed)),
        "test": _cohort_plan(test_cohort(budget)),
        "configs": digest([config_entries("train.json"), settings]).decode(),
        "text_encoder": text_encoder_folder(model.get("text_model", "auto")).name,
        "code": _code(),
    }
    return json.loads(json.dumps(made))


def _cohort_plan(folder: str) -> Any:
    return json.loads((Path(folder) / phantom.SIMULATION).read_text(encoding="utf-8"))["plan"]


@cache
def _code() -> str:
    targets = set(_targets(config_entries("train.json")))
    roots = {
        target.rpartition(".")[0] for target in targets if target.startswith(("rect_vlm.", "medbundles."))
    }
    return code_digest({*roots, "rect_vlm.comparison.training", "rect_vlm.comparison.scoring"})


def _targets(entry: Any) -> list[str]:
    """Every `_target_` in a config."""
    if isinstance(entry, list):
        return [target for item in entry for target in _targets(item)]
    if not isinstance(entry, dict):
        return []
    own = [entry["_target_"]] if "_target_" in entry else []
    return own + [target for item in entry.values() for target in _targets(item)]
