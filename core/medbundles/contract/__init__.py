"""The bundle contract: everything that must hold for a folder to be a bundle others can rely on."""

from __future__ import annotations

from medbundles.bundle import BundleInfo
from medbundles.contract.code import code_problems
from medbundles.contract.configs import config_problems
from medbundles.contract.metadata import metadata_problems
from medbundles.contract.network import network_problems
from medbundles.contract.properties import property_problems, target_problems
from medbundles.contract.weights import weight_problems

__all__ = ["file_problems", "static_problems", "verify"]

FILES = [
    "LICENSE",
    "configs/metadata.json",
    "configs/train.json",
    "configs/evaluate.json",
    "configs/inference.json",
    "docs/README.md",
]


def static_problems(info: BundleInfo) -> list[str]:
    """Everything wrong that shows without executing the bundle, each as "file: what is required"."""
    problems = [file_problems, metadata_problems, config_problems, weight_problems]
    return [line for check in problems for line in check(info)]


def verify(info: BundleInfo) -> list[str]:
    """Everything wrong with a bundle; imports its package, builds its workflows and runs its network.

    Works offline and writes nothing to the bundle. An empty list means that the whole contract holds.
    """
    problems = static_problems(info)
    broken = code_problems(info)
    if broken:  # without the package every later check would repeat the same fault
        return problems + broken
    return problems + target_problems(info) + property_problems(info) + network_problems(info)


def file_problems(info: BundleInfo) -> list[str]:
    """Required files that are missing or empty."""
    files = [info.root / name for name in FILES]
    return [
        f"{file.relative_to(info.root)}: required, but missing or empty"
        for file in files
        if not file.is_file() or not file.stat().st_size
    ]
