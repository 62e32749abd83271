"""Cache keys that change when a file or a setting changes, and only then."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import monai
from medbundles.fingerprint import digest, file_stamp, settings

VERSION = 1  # raise when the same settings prepare a volume differently
PACKAGE = "rect_vlm"


def volume_key(volume: Mapping[str, Any]) -> bytes:
    """Key of a volume from its record's values and from size and time of every file that it names."""
    named = [volume["image"], volume.get("regions"), *volume.get("lesion_masks", {}).values()]
    files = sorted({os.fspath(path) for path in named if isinstance(path, str | os.PathLike)})
    return digest([settings(volume, PACKAGE), [[path, *file_stamp(path)] for path in files]])


def transform_key(transforms: Sequence[Any]) -> bytes:
    """Key of a chain of transforms from their classes and settings; the same in every process."""
    return digest([VERSION, monai.__version__, [settings(transform, PACKAGE) for transform in transforms]])
