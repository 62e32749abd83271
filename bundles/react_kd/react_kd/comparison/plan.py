"""What the comparison runs: regimes, methods and sizes, fixed before anything is compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

TEST_SEED = 9001  # one independent test cohort for all runs
DOSES: tuple[float | None, ...] = (None, 1e6, 5e4, 1e4, 1e3, 5e2)
TEACHER_DOSES: tuple[float | None, ...] = (None, 5e4, 1e4, 1e3)
METHODS = ("ce", "kd", "at", "cirkd", "mskd_style", "mtcm_style", "camkd", "react")
# REACT-KD without each of its parts, in the regime with ungraded cases.
ABLATIONS = (
    "react_no_logits", "react_no_graph", "react_no_gw", "react_no_cbam", "react_no_modality_dropout",
    "react_no_dose_teacher", "react_no_function_teacher",
)  # fmt: skip


@dataclass(frozen=True)
class Regime:
    """One training situation: share of wrong grades, and whether ungraded cases take part."""

    title: str
    label_noise: float = 0.0
    ungraded: bool = False


REGIMES: Mapping[str, Regime] = {
    "few": Regime("few clean labels"),
    "noisy": Regime("few labels, 15 % of them wrong", label_noise=0.15),
    "ungraded": Regime("few labels, many ungraded PET/CT and CT cases", ungraded=True),
}


@dataclass(frozen=True)
class Budget:
    """Sizes of one form of the comparison; every method gets the same number of steps and cases per step."""

    seeds: int
    folds: int  # how many of the 3 folds of each seed's cohort are run
    ablation_regimes: tuple[str, ...]
    steps: int  # optimizer steps of a student
    teacher_steps: int
    graded: int = 72  # two thirds train, one third validates
    ungraded_petct: int = 72
    ungraded_ct: int = 36
    test: int = 90
    batch_size: int = 6
    ungraded_ratio: float = 0.5
    lr: float = 3e-3
    teacher_lr: float = 3e-3
    weight_decay: float = 1e-3
    size: tuple[int, int, int] = (24, 24, 12)
    modality_dropout: float = 0.5
    drop_pet_share: float = 0.8


BUDGETS = {
    "short": Budget(seeds=2, folds=2, ablation_regimes=("ungraded",), steps=64, teacher_steps=160),
    "full": Budget(seeds=5, folds=3, ablation_regimes=tuple(REGIMES), steps=400, teacher_steps=600),
}

STUDENT: dict[str, Any] = {
    "channels": 32, "pool": "avgmax", "encoder": "segresnet",
    "encoder_args": {"init_filters": 8, "blocks_down": [1, 1, 1]},
}  # fmt: skip
TEACHER: dict[str, Any] = {
    "channels": 32, "pool": "avgmax",
    "encoder_args": {"feature_size": 24, "level": 1, "window_size": [4, 4, 4]},
}  # fmt: skip
REACT: dict[str, Any] = {"alpha": 0.7, "temperature": 2.0, "lam": 1.0, "graph_warmup_epochs": 0}


@dataclass(frozen=True)
class Run:
    """One training: a method in a regime on one fold of one seed's cohort."""

    regime: str
    seed: int
    fold: int
    method: str

    @property
    def name(self) -> str:
        return f"{self.regime}-seed{self.seed}-fold{self.fold}-{self.method}"


def runs(budget: Budget) -> list[Run]:
    """All trainings of a budget, in an order that completes whole comparisons early."""
    todo = []
    for seed in range(budget.seeds):
        for fold in range(budget.folds):
            for regime in REGIMES:
                methods = METHODS + (ABLATIONS if regime in budget.ablation_regimes else ())
                todo += [Run(regime, seed, fold, method) for method in methods]
    return todo


def fingerprint(budget: Budget) -> dict[str, Any]:
    """Everything a result depends on besides code; kept beside the results."""
    return {
        "budget": asdict(budget), "student": STUDENT, "teacher": TEACHER, "react": REACT,
        "regimes": {name: asdict(regime) for name, regime in REGIMES.items()},
        "doses": DOSES, "teacher_doses": TEACHER_DOSES, "test_seed": TEST_SEED,
    }  # fmt: skip
