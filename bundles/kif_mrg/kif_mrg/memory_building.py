"""The content of a report memory: from training records, or taken over from a file of vectors."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch.nn import functional as F

from kif_mrg.memory_backends import Backend
from kif_mrg.memory_file import read_entries
from kif_mrg.records import Record


def build_entries(backend: Backend, training: Sequence[Record], dim: int) -> dict[str, Any]:
    """Vectors, studies, texts and, if the backend compares pictures, the pictures of the training records.

    Raises FileNotFoundError or ValueError for an image that is missing or damaged.
    """
    reports = [record["report"] for record in training]
    content: dict[str, Any] = {
        "features": F.normalize(backend.texts(reports, dim), dim=1).numpy(),
        "study_ids": np.array([record["study_id"] for record in training]),
        "reports": reports,
        "pictures": [picture_key(record) for record in training],
    }
    if backend.among_pictures:
        vectors = backend.pictures([record["image_path"][0] for record in training], "report memory")
        # All chest pictures are alike: only without their mean does the cosine tell them apart.
        centre = vectors.mean(0)
        content |= {"centre": centre.numpy(), "keys": F.normalize(vectors - centre, dim=1).numpy()}
    return content


def take_over(file: str, dim: int) -> dict[str, Any]:
    """Vectors, studies and texts of a given npz; raises ValueError when it is unusable or not `dim` wide."""
    given = read_entries(Path(file))
    if given.features.shape[1] != dim:
        raise ValueError(
            f"dim must be the width of the vectors in {file}, {given.features.shape[1]}, got {dim}"
        )
    return {
        "features": given.features.numpy(),
        "study_ids": np.array(given.study_ids),
        "reports": given.reports,
    }


def entries_digest(records: Sequence[Record]) -> str:
    """Changes with the records, their reports and their first pictures; the same on every machine."""
    content = hashlib.sha256()
    for record in records:
        content.update(json.dumps([picture_key(record), record["report"]]).encode())
    return content.hexdigest()


def picture_key(record: Record) -> str:
    """Names the first picture of a record; the same on every machine, another when the file changes size."""
    path = Path(record["image_path"][0])
    return f"{record['split']}/{record['id']}/{record['study_id']}/{path.name}:{path.stat().st_size}"
