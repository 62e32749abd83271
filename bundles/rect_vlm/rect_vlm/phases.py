"""The five phases of the training: which parts learn, from which losses, from whose weights they start."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

PARTS = ("vision", "classifier", "localizer", "projector", "lora")
TASKS = ("cls", "loc", "gen", "reward")
ORDER = ("1.1", "1.2", "1.3", "2", "3")
# Parts that a task reads besides those it trains: the vision encoder comes first in all of them.
PARTS_OF_TASK: Mapping[str, tuple[str, ...]] = {
    "cls": ("vision", "classifier"),
    "loc": ("vision", "localizer"),
    "gen": ("vision", "projector", "lora"),
    "reward": PARTS,  # reports are written from what classifier and localizer find
}


@dataclass(frozen=True)
class Phase:
    """What a phase trains, minimises, and for how long.

    Args:
        name: one of ORDER.
        trains: highest learning rate of every part that learns; all others are frozen.
        losses: weight of every task's loss.
        epochs: passes over the training scans.
        batch_size: scans per batch and process.
        accumulate: batches per step of the optimizer.
        warmup: share of the steps over which the rates rise.
        options: further numbers of this phase alone (those of GRPO).

    Raises:
        ValueError: an unknown phase, part or task, or a part that no loss of the phase reaches.
    """

    name: str
    trains: Mapping[str, float]
    losses: Mapping[str, float]
    epochs: int
    batch_size: int = 8
    accumulate: int = 1
    warmup: float = 0.05
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for what, given, known in (
            ("phase", [self.name], ORDER),
            ("trains", self.trains, PARTS),
            ("losses", self.losses, TASKS),
        ):
            if wrong := sorted(set(given) - set(known)):
                raise ValueError(f"phase {self.name}: {what} must be among {', '.join(known)}, got {wrong}")
        if idle := sorted(set(self.trains) - set(self.parts)):
            raise ValueError(f"phase {self.name}: no loss of {sorted(self.losses)} reaches {idle}")
        if not self.trains or not self.losses:
            raise ValueError(f"phase {self.name}: trains and losses must name at least one part and task")

    @property
    def parts(self) -> tuple[str, ...]:
        """Parts that take part in this phase, learning or frozen, in the order of PARTS."""
        needed = {part for task in self.losses for part in PARTS_OF_TASK[task]}
        return tuple(part for part in PARTS if part in needed)

    @property
    def stem(self) -> str:
        """Name of its files: `phase_1_1`."""
        return "phase_" + self.name.replace(".", "_")


def read_phases(table: Mapping[str, Mapping[str, Any]]) -> dict[str, Phase]:
    """Phases from the numbers of a config, keyed by name, in their order.

    Raises:
        ValueError: see `Phase`; also a number that no phase has.
    """
    phases = {}
    for name in sorted(table, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER)):
        try:
            phases[name] = Phase(name=name, **table[name])
        except TypeError as error:
            raise ValueError(f"phase {name}: {error}") from error
    return phases


def chosen_phases(wanted: str | float | Collection[Any], known: Collection[str]) -> list[str]:
    """Names of the phases to run, in their order; a single name or a list, as numbers or as text.

    Raises:
        ValueError: a name that the table does not have, or none at all.
    """
    several = wanted if isinstance(wanted, list | tuple | set) else [wanted]
    names = {str(name) for name in several}
    if unknown := sorted(names - set(known)):
        raise ValueError(f"phases must be among {', '.join(known)}, got {', '.join(unknown)}")
    if not names:
        raise ValueError(f"phases must name at least one of {', '.join(known)}")
    return [name for name in ORDER if name in names]


def sources(phase: Phase, phases: Mapping[str, Phase]) -> dict[str, str | None]:
    """For every part of a phase the newest earlier phase that trained it; None for its first weights."""
    earlier = [phases[name] for name in ORDER[: ORDER.index(phase.name)] if name in phases]
    return {
        part: next((other.name for other in reversed(earlier) if part in other.trains), None)
        for part in phase.parts
    }
