"""Ignite pieces that bundles share: distillation trainer, exact resume, guards, logs."""

from medbundles.engines.checkpointing import Checkpointing
from medbundles.engines.distillation import DistillationTrainer, freeze
from medbundles.engines.groups import parameter_groups
from medbundles.engines.guards import EarlyStop, NonFiniteLossError, check_finite
from medbundles.engines.logs import TermLogger
from medbundles.engines.seeding import EpochSeed

__all__ = [
    "Checkpointing",
    "DistillationTrainer",
    "EarlyStop",
    "EpochSeed",
    "NonFiniteLossError",
    "TermLogger",
    "check_finite",
    "freeze",
    "parameter_groups",
]
