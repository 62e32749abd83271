"""Cache keys that change when a file or a setting changes, and only then."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import monai
import numpy as np
import torch

from react_kd.cases import FILE_KEYS


def file_stamp(path: str | Path) -> list[int]:
    """[bytes, latest modification in ns, number of files] of a file, or of all files in a DICOM folder."""
    path = Path(path)
    files = sorted(child for child in path.iterdir() if child.is_file()) if path.is_dir() else [path]
    stats = [file.stat() for file in files]
    return [sum(s.st_size for s in stats), max((s.st_mtime_ns for s in stats), default=0), len(stats)]


def hash_case(case: Mapping[str, Any]) -> bytes:
    """Key of a case from its values and from size and time of every file that it names."""
    stamps = {key: file_stamp(case[key]) for key in FILE_KEYS if case.get(key)}
    return _digest([_settings(dict(case)), stamps])


def hash_transforms(transforms: Sequence[Any]) -> bytes:
    """Key of a chain of transforms from their classes and settings; the same in every process."""
    return _digest([monai.__version__, [_settings(transform) for transform in transforms]])


def _digest(content: Any) -> bytes:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32].encode()


def _settings(value: Any) -> Any:
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _settings(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_settings(item) for item in value]
    if isinstance(value, np.ndarray | torch.Tensor):
        return hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
    if isinstance(value, type) or (callable(value) and hasattr(value, "__qualname__")):
        return f"{value.__module__}.{value.__qualname__}"
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    # Only our own and MONAI's transforms are known to hold settings; readers and the like count by class.
    if kind.startswith(("react_kd.", "medbundles.", "monai.transforms.")):
        return {"class": kind, **{name: _settings(item) for name, item in sorted(vars(value).items())}}
    return kind
