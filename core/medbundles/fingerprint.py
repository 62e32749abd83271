"""Parts of cache keys that change when a file or a setting changes, and only then."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch


def file_stamp(path: str | Path) -> list[int]:
    """[bytes, latest modification in ns, number of files] of a file, or of all files in a DICOM folder."""
    path = Path(path)
    files = sorted(child for child in path.iterdir() if child.is_file()) if path.is_dir() else [path]
    stats = [file.stat() for file in files]
    return [sum(s.st_size for s in stats), max((s.st_mtime_ns for s in stats), default=0), len(stats)]


def digest(content: Any) -> bytes:
    """A key of 32 hex digits for anything JSON can write."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32].encode()


def settings(value: Any, package: str) -> Any:
    """What JSON can write of a value, the same in every process: numbers, names, arrays by their digest.

    Objects of `package`, of this one and MONAI's transforms are known to hold settings; others, readers and
    the like, count by class.
    """
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): settings(item, package) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [settings(item, package) for item in value]
    if isinstance(value, np.ndarray | torch.Tensor):
        return hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
    if isinstance(value, type) or (callable(value) and hasattr(value, "__qualname__")):
        return f"{value.__module__}.{value.__qualname__}"
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    if kind.startswith((f"{package}.", "medbundles.", "monai.transforms.")):
        return {
            "class": kind,
            **{name: settings(item, package) for name, item in sorted(vars(value).items())},
        }
    return kind
