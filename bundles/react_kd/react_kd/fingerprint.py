"""Cache keys that change when a file or a setting changes, and only then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import monai
from medbundles.fingerprint import digest, file_stamp, settings

from react_kd.cases import FILE_KEYS

PACKAGE = "react_kd"


def hash_case(case: Mapping[str, Any]) -> bytes:
    """Key of a case from its values and from size and time of every file that it names."""
    stamps = {key: file_stamp(case[key]) for key in FILE_KEYS if case.get(key)}
    return digest([settings(dict(case), PACKAGE), stamps])


def hash_transforms(transforms: Sequence[Any]) -> bytes:
    """Key of a chain of transforms from their classes and settings; the same in every process."""
    return digest([monai.__version__, [settings(transform, PACKAGE) for transform in transforms]])
