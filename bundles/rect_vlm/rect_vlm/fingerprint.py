"""Cache keys that change when a file or a setting changes, and only then."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import monai
import numpy as np
import torch

VERSION = 1  # raise when the same settings prepare a volume differently


def file_stamp(path: str | Path) -> list[int]:
    """[bytes, latest modification in ns, number of files] of a file, or of all files in a DICOM folder."""
    path = Path(path)
    files = sorted(child for child in path.iterdir() if child.is_file()) if path.is_dir() else [path]
    stats = [file.stat() for file in files]
    return [sum(s.st_size for s in stats), max((s.st_mtime_ns for s in stats), default=0), len(stats)]


def volume_key(volume: Mapping[str, Any]) -> bytes:
    """Key of a volume from its record's values and from size and time of every file that it names."""
    named = [volume["image"], volume.get("regions"), *volume.get("lesion_masks", {}).values()]
    files = sorted({os.fspath(path) for path in named if isinstance(path, str | os.PathLike)})
    return _digest([_settings(volume), [[path, *file_stamp(path)] for path in files]])


def transform_key(transforms: Sequence[Any]) -> bytes:
    """Key of a chain of transforms from their classes and settings; the same in every process."""
    return _digest([VERSION, monai.__version__, [_settings(transform) for transform in transforms]])


def _digest(content: Any) -> bytes:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32].encode()


def _settings(value: Any) -> Any:
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, Mapping):
        return {str(key): _settings(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_settings(item) for item in value]
    if isinstance(value, np.ndarray | torch.Tensor):
        return hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
    if isinstance(value, type) or (callable(value) and hasattr(value, "__qualname__")):
        return f"{value.__module__}.{value.__qualname__}"
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    # Only our own and MONAI's transforms are known to hold settings; other objects count by class.
    if kind.startswith(("rect_vlm.", "monai.transforms.")):
        return {"class": kind, **{name: _settings(item) for name, item in sorted(vars(value).items())}}
    return kind
