"""Check of shipped weights against the SHA-256 sums in large_files.yml."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

from medbundles.bundle import BundleInfo


def weight_problems(info: BundleInfo) -> list[str]:
    """Entries of large_files.* without a SHA-256 sum or outside the bundle, and files that differ."""
    lists = [
        file for file in sorted(info.root.glob("large_files.*")) if file.suffix in (".yml", ".yaml", ".json")
    ]
    return [f"{file.name}: {problem}" for file in lists for problem in _list_problems(info.root, file)]


def _list_problems(root: Path, file: Path) -> list[str]:
    from monai.bundle import ConfigParser
    from monai.utils import OptionalImportError

    try:
        content = ConfigParser.load_config_file(file)
        entries = content["large_files"]
    except OptionalImportError:
        return ["PyYAML is needed to read it"]
    except (ValueError, KeyError, TypeError) as problem:
        return [f"must hold a list `large_files`: {problem!r}"]
    if not isinstance(entries, list):
        return [f"large_files must be a list, got {type(entries).__name__}"]
    return [problem for entry in entries for problem in _entry_problems(root, entry)]


def _entry_problems(root: Path, entry: Any) -> list[str]:
    if not isinstance(entry, dict) or not isinstance(entry.get("path"), str):
        return [f"every entry must be an object with a path, got {entry!r}"]
    path = entry["path"]
    target = (root / path).resolve()
    if not target.is_relative_to(root):
        return [f"{path}: must stay inside the bundle"]
    wanted = str(entry.get("hash_val", "")).lower()
    if entry.get("hash_type") != "sha256" or not re.fullmatch(r"[0-9a-f]{64}", wanted):
        return [f"{path}: needs hash_type sha256 and a hash_val of 64 hex digits"]
    if target.is_file() and (have := sha256(target)) != wanted:
        return [f"{path}: SHA-256 must be {wanted}, got {have}"]
    return []


def sha256(file: Path) -> str:
    """SHA-256 of a file's bytes as hex digits."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
