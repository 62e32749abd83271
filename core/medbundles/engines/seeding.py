"""Seeding by epoch: every random draw of an epoch is a pure function of (seed, epoch, rank)."""

from typing import Any

import ignite.distributed as idist
from ignite.engine import Engine, Events
from monai.utils import set_determinism


class EpochSeed:
    """Reseed Python, NumPy, torch, the transforms and the sampler at the start of every epoch.

    A run that was killed and resumed then draws exactly what the uninterrupted run draws.

    Args:
        seed: seed of the run.
        randomizable: objects with `set_random_state(seed)` (MONAI transforms) or `set_epoch(epoch)`
            (samplers).
    """

    def __init__(self, seed: int, randomizable: tuple[Any, ...] = ()) -> None:
        self.seed = seed
        self.randomizable = randomizable

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        epoch = engine.state.epoch
        # Distinct primes keep (seed, epoch, rank) apart for any realistic run; set_determinism takes 32 bits.
        seed = (self.seed * 1_000_003 + epoch * 7919 + idist.get_rank() * 104_729) % 2**32
        set_determinism(seed)
        for item in self.randomizable:
            if hasattr(item, "set_random_state"):
                item.set_random_state(seed)
            if hasattr(item, "set_epoch"):
                item.set_epoch(epoch)
