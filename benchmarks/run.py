"""All benchmarks in one run: ours, a reference, their ratio, the gate; exit 1 if a gate fails."""

from __future__ import annotations

import sys

from benchmarks import decoding, graph, low_dose, patch_regions, slice_attention, startup, step
from benchmarks.timing import print_rows


def main() -> int:
    """Print every row; CPU time of one thread, candidates taking turns."""
    modules = (step, startup, graph, low_dose, decoding, slice_attention, patch_regions)
    rows = [row for module in modules for row in module.rows()]
    print_rows(rows)
    return 1 if any(row.passed is False for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
