"""Nearest rows of a report memory, never of the query's own study, and the file that keeps them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from medbundles.precision import best_device
from torch import Tensor

from kif_mrg.memory_file import read_json, write_npz

SCORES = 2**25  # inner products held at once, 128 MB


def nearest_rows(
    queries: Tensor, studies: Sequence[str | None], keys: Tensor, key_studies: Sequence[str], k: int
) -> Tensor:
    """Rows (Q, k) of the keys with the largest inner product, best first, none of the query's own study.

    Args:
        queries: (Q, Dk).
        studies: study of each query; None excludes nothing.
        keys: (N, Dk).
        key_studies: study of each key.

    Raises:
        ValueError: some query has fewer than `k` keys of other studies.
    """
    codes = {study: code for code, study in enumerate(dict.fromkeys(key_studies))}
    of_key = torch.tensor([codes[study] for study in key_studies])
    of_query = torch.tensor([-1 if study is None else codes.get(study, -1) for study in studies])
    sizes = torch.cat([of_key.bincount(), torch.zeros(1, dtype=torch.long)])  # the last one is for code -1
    left = len(keys) - int(sizes[of_query].max())
    if not 0 < k <= left:
        raise ValueError(f"k must be in 1..{left}, the reports of other studies in the memory, got k={k}")
    device = best_device()
    keys, of_key = keys.to(device), of_key.to(device)
    rows = []
    chunk = max(1, SCORES // len(keys))
    for part, own in zip(queries.split(chunk), of_query.split(chunk), strict=True):
        scores = part.to(device) @ keys.T  # (chunk, N)
        scores.masked_fill_(own.to(device)[:, None] == of_key, -torch.inf)
        rows.append(scores.topk(k, dim=1).indices.cpu())
    return torch.cat(rows)


def read_rows(path: Path, settings: Mapping[str, Any], k: int) -> dict[str, list[int]]:
    """Kept rows by picture; nothing if there is no file, or it is of another memory or a smaller `k`."""
    if not path.is_file() or read_json(path, "settings") != settings:
        return {}
    with np.load(path) as file:
        rows = file["rows"]
    return (
        dict(zip(read_json(path, "pictures"), rows[:, :k].tolist(), strict=True))
        if rows.shape[1] >= k
        else {}
    )


def write_rows(path: Path, settings: Mapping[str, Any], kept: Mapping[str, list[int]]) -> None:
    """Keep rows, equally many for each picture, for `read_rows`."""
    rows = np.array(list(kept.values()), dtype=np.int32)
    write_npz(path, {"settings": settings, "pictures": list(kept), "rows": rows})
