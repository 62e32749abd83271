"""What the comparison runs: arms, trainings and sizes, fixed before anything is compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from medbundles.contract.weights import sha256
from medbundles.registry import get

from kif_mrg import phantom

TEST_SEED = 9001  # one independent test cohort for all runs
# What differs from case to case in the simulated cohort.
ACTIVE = ("cardiomegaly", "lung_opacity", "lung_lesion", "pleural_effusion", "support_devices")


@dataclass(frozen=True)
class Training:
    """A run of train.json: its number of rounds, and ids that have another value there."""

    rounds: int
    changes: Mapping[str, Any] = field(default_factory=dict)


NO_GRAPH: Mapping[str, Any] = {"reporter#use_graph": False}
NO_MEMORY: Mapping[str, Any] = {"network_def#use_memory": False, "memory": None}
TRAININGS: Mapping[str, Training] = {
    "full": Training(2),
    "no_graph": Training(1, NO_GRAPH),
    "no_memory": Training(1, NO_MEMORY),
    "no_query_fusion": Training(1, {"network_def#query_fusion": "none"}),
    "baseline": Training(1, {**NO_GRAPH, **NO_MEMORY}),
}


@dataclass(frozen=True)
class Arm:
    """One reporter that is compared: the best epoch on the validation cases of a round of a training."""

    title: str
    training: str
    round: int


BASELINE, UNTAUGHT = "baseline", "no_distillation"
# `full` and `no_distillation` share round 0: without a teacher it is the same training.
ARMS: dict[str, Arm] = {
    "full": Arm("graph, memory and distillation", "full", 1),
    UNTAUGHT: Arm("no teacher", "full", 0),
    "no_graph": Arm("no teacher, the decoder reads the plain patches", "no_graph", 0),
    "no_memory": Arm("no teacher, diagnosis from the image alone", "no_memory", 0),
    "no_query_fusion": Arm("no teacher, the query does not meet the finding terms", "no_query_fusion", 0),
    BASELINE: Arm("no graph, no memory, no teacher", "baseline", 0),
}


@dataclass(frozen=True)
class Budget:
    """Sizes of one form of the comparison, the same for all arms.

    All else is as in train.json, but for the ids in `changes`.
    """

    seeds: int
    arms: tuple[str, ...] = tuple(ARMS)
    train: int = 384
    val: int = 100
    test: int = 100
    image_size: int = 96
    changes: Mapping[str, Any] = field(default_factory=dict)


# The short form validates every other epoch, and leaves the one arm out that is a part of another.
SHORT_ARMS = tuple(name for name in ARMS if name != "no_query_fusion")
BUDGETS = {
    "short": Budget(seeds=3, arms=SHORT_ARMS, changes={"val_interval": 2}),
    "full": Budget(seeds=5, test=200),
}


@dataclass(frozen=True)
class Run:
    """An arm on the cohort of one seed, which also seeds its training."""

    arm: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.arm}-seed{self.seed}"


def runs(budget: Budget) -> list[Run]:
    """All runs of a budget, in an order that completes whole seeds early."""
    return [Run(arm, seed) for seed in range(budget.seeds) for arm in budget.arms]


def trainings(budget: Budget) -> list[tuple[str, int]]:
    """Every training that some run needs, once: its name and seed."""
    return list(dict.fromkeys((ARMS[run.arm].training, run.seed) for run in runs(budget)))


def run_file(folder: Path, run: Run) -> Path:
    """Where the scores of a run are kept."""
    return folder / "runs" / f"{run.name}.json"


def floors_file(folder: Path, seed: int) -> Path:
    """Where the scores of the floors of a seed are kept."""
    return folder / "runs" / f"floors-seed{seed}.json"


def training_cohort(budget: Budget, seed: int) -> str:
    """Folder of the training and validation cases of a seed."""
    sizes = {"train": budget.train, "val": budget.val, "test": 0}
    return phantom.simulated_cohort(seed, sizes, image_size=budget.image_size)


def test_cohort(budget: Budget) -> str:
    """Folder of the independent test cases."""
    sizes = {"train": 0, "val": 0, "test": budget.test}
    return phantom.simulated_cohort(TEST_SEED, sizes, image_size=budget.image_size)


def config_file() -> Path:
    """The config that every training runs."""
    return get("kif_mrg").root / "configs" / "train.json"


def fingerprint(budget: Budget) -> dict[str, Any]:
    """Everything a result depends on besides code; kept beside the results."""
    return {
        "budget": asdict(budget),
        "trainings": {name: asdict(training) for name, training in TRAININGS.items()},
        "arms": {name: asdict(arm) for name, arm in ARMS.items()},
        "test_seed": TEST_SEED,
        "simulation": phantom.VERSION,
        "train.json": sha256(config_file()),
    }
