"""The npz file of a report memory: vectors, studies and texts, readable without pickle."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from medbundles.atomic import replacing
from torch import Tensor
from torch.nn import functional as F

REQUIRED = {"features": 2, "study_ids": 1}  # axes


@dataclass(frozen=True)
class Entries:
    """What the file holds; a picture's vector is compared with `keys` after `centre` is taken off it."""

    settings: dict[str, Any]  # empty for a file that others made
    features: Tensor  # (N, Dm), rows of length 1
    keys: Tensor  # (N, Dk), rows of length 1
    centre: Tensor  # (Dk,)
    study_ids: list[str]
    reports: list[str]  # empty if the file has none
    pictures: dict[str, int]  # picture of a training record -> its row


def write_npz(path: Path, content: Mapping[str, Any]) -> None:
    """Write arrays and, packed as JSON, anything else in one step; errors as in medbundles.atomic."""
    arrays = {
        key: value if isinstance(value, np.ndarray) else np.frombuffer(json.dumps(value).encode(), np.uint8)
        for key, value in content.items()
    }
    with replacing(path) as temporary:
        np.savez(temporary, **arrays)  # type: ignore[arg-type]


def read_json(path: Path, key: str) -> Any:
    """What `write_npz` packed under a key; None if the file has no such key.

    Raises:
        ValueError: no npz file.
    """
    try:
        with np.load(path) as file:
            return json.loads(file[key].tobytes()) if key in file else None
    except (zipfile.BadZipFile, ValueError, EOFError, AttributeError) as error:
        raise ValueError(f"a report memory is an npz file, got {path}: {error}") from error


def read_entries(path: Path) -> Entries:
    """Read a memory written here, or one with `features` (N, Dm), `study_ids` (N) and maybe `reports` (N).

    Raises:
        ValueError: no npz file, or one of the arrays is missing or does not fit; names file and key.
    """
    settings = read_json(path, "settings")
    with np.load(path) as file:
        for key, axes in REQUIRED.items():
            if key not in file or file[key].ndim != axes or not len(file[key]):
                raise ValueError(
                    f"report memory {path}, key {key}: required is a filled array of {axes} axes"
                )
        features = torch.from_numpy(file["features"]).float()
        study_ids = [str(study) for study in file["study_ids"].tolist()]
        keys = torch.from_numpy(file["keys"]) if "keys" in file else None
        centre = torch.from_numpy(file["centre"]) if "centre" in file else torch.zeros(features.shape[1])
        foreign = list(map(str, file["reports"].tolist())) if settings is None and "reports" in file else []
    reports = foreign if settings is None else read_json(path, "reports")
    for key, count in (("study_ids", len(study_ids)), ("reports", len(reports) or len(features))):
        if count != len(features):
            raise ValueError(
                f"report memory {path}, key {key}: one per vector is required, "
                f"got {count} for {len(features)} vectors"
            )
    if not bool(features.isfinite().all()):
        raise ValueError(f"report memory {path}, key features: must be finite, got NaN or infinity")
    features = F.normalize(features, dim=1)
    pictures = {name: row for row, name in enumerate(read_json(path, "pictures") or [])}
    return Entries(
        settings or {}, features, features if keys is None else keys, centre, study_ids, reports, pictures
    )
