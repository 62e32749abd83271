"""All benchmarks in one run: ours, a reference, their ratio, the gate; exit 1 if a gate fails."""

from __future__ import annotations

import sys

from benchmarks import decoding, graph, low_dose, startup, step
from benchmarks.timing import print_rows


def main() -> int:
    """Print every row; CPU time of one thread, candidates taking turns."""
    rows = [row for module in (step, startup, graph, low_dose, decoding) for row in module.rows()]
    print_rows(rows)
    return 1 if any(row.passed is False for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
