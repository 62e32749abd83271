"""KIF-ISD against itself without each of its parts, on the simulated cohort: `medbundles bench kif_mrg`."""

from kif_mrg.comparison.driver import main

__all__ = ["main"]
