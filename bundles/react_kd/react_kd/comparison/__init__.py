"""The comparison of training methods on the simulated cohort: `medbundles bench react_kd`."""

from react_kd.comparison.driver import main

__all__ = ["main"]
