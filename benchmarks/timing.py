"""Side-by-side timing in one process: candidates take turns, one thread, least CPU time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from threadpoolctl import threadpool_limits


@dataclass(frozen=True)
class Row:
    """One line of the benchmark: ours against a reference, as a ratio with its gate.

    ``reference_ms`` is None when the reference is not installed; then there is no ratio and no verdict, and
    ``reference`` says why. Build it with :meth:`speedup` or :meth:`cost`.
    """

    name: str
    ours_ms: float
    reference: str
    reference_ms: float | None
    ratio: float | None
    gate: str
    passed: bool | None

    @classmethod
    def speedup(
        cls,
        name: str,
        ours_ms: float,
        reference: str,
        reference_ms: float | None,
        at_least: float | None = None,
    ) -> Row:
        """Ratio reference / ours, passed from ``at_least`` on; without a gate it is only printed."""
        ratio = None if reference_ms is None else reference_ms / ours_ms
        gate = "" if at_least is None else f">= {at_least:g}"
        passed = None if ratio is None or at_least is None else ratio >= at_least
        return cls(name, ours_ms, reference, reference_ms, ratio, gate, passed)

    @classmethod
    def cost(
        cls,
        name: str,
        ours_ms: float,
        reference: str,
        reference_ms: float | None,
        at_most: float | None = None,
    ) -> Row:
        """Ratio ours / reference, passed up to ``at_most``; without a gate it is only printed."""
        ratio = None if reference_ms is None else ours_ms / reference_ms
        gate = "" if at_most is None else f"<= {at_most:g}"
        passed = None if ratio is None or at_most is None else ratio <= at_most
        return cls(name, ours_ms, reference, reference_ms, ratio, gate, passed)


def interleaved(candidates: Mapping[str, Callable[[], object]], rounds: int = 5) -> dict[str, float]:
    """Least CPU milliseconds per call of each candidate over ``rounds``, after one untimed call of each.

    Every round calls all candidates in turn, so that a busy moment of the machine does not fall on one of
    them. CPU time of the process counts, not wall time; torch and the BLAS libraries get one thread.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            for call in candidates.values():
                call()
            best = dict.fromkeys(candidates, float("inf"))
            for _ in range(rounds):
                for name, call in candidates.items():
                    start = time.process_time()
                    call()
                    best[name] = min(best[name], 1000 * (time.process_time() - start))
    finally:
        torch.set_num_threads(threads)
    return best


def print_rows(rows: Iterable[Row]) -> None:
    """Print the rows as an aligned table with a verdict for each gate."""
    header = ["figure", "ours ms", "reference", "ref ms", "ratio", "gate", ""]
    verdict = {True: "pass", False: "FAIL", None: ""}
    table = [header]
    for row in rows:
        numbers = [_number(row.ours_ms), row.reference, _number(row.reference_ms), _number(row.ratio)]
        table.append([row.name, *numbers, row.gate, verdict[row.passed]])
    widths = [max(len(line[column]) for line in table) for column in range(len(header))]
    for line in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
