"""CPU seconds until a bundle config is read and ready, against the bare imports nobody can avoid."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

from benchmarks.timing import Row, print_rows

CONFIG = Path(__file__).resolve().parents[1] / "bundles/react_kd/configs/train.json"
BARE = "import torch, ignite.engine, monai.bundle, monai.engines, monai.handlers"


def rows(rounds: int = 3) -> list[Row]:
    """Start of `python -m monai.bundle run` on react_kd without any training, user and system time."""
    run = ["-m", "monai.bundle", "run", "nothing", "--config_file", str(CONFIG), "--nothing", "$None"]
    best = {"run": float("inf"), "bare": float("inf")}
    for _ in range(rounds):
        for name, arguments in (("run", run), ("bare", ["-c", BARE])):
            best[name] = min(best[name], _cpu_seconds([sys.executable, *arguments]))
    title = "start of `monai.bundle run`, react_kd"
    return [
        Row.cost(title, 1000 * best["run"], "import torch, ignite, monai", 1000 * best["bare"], at_most=1.10)
    ]


def _cpu_seconds(command: list[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    print_rows(rows())
