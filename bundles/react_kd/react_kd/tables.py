"""The table of predictions: one row per case and condition, written and read as CSV."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from medbundles.tables import PathLike, read_csv
from numpy.typing import ArrayLike


def prediction_rows(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    fold: int,
    epoch: int,
    patient_ids: Sequence[str],
    scan_ids: Sequence[str],
    condition: str = "full",
) -> list[dict[str, Any]]:
    """One row per case: prob_k, label, pred, fold, epoch, logit_k, patient_id, scan_id, condition.

    `logits` (N,K), `labels` (N,) with -1 for an ungraded case. `condition` names what the network was given
    (a dose level, a set of modalities).

    Raises:
        ValueError: the arguments do not all describe N cases.
    """
    z = np.asarray(logits, dtype=np.float64)
    lengths = {"labels": len(np.asarray(labels)), "patient_ids": len(patient_ids), "scan_ids": len(scan_ids)}
    if z.ndim != 2 or set(lengths.values()) != {len(z)}:
        raise ValueError(f"logits must be (N,K) with N entries in every column, got {z.shape} for {lengths}")
    probs = np.exp(z - z.max(axis=1, keepdims=True))
    probs /= probs.sum(axis=1, keepdims=True)
    return [
        {f"prob_{k}": float(p) for k, p in enumerate(probs[i])}
        | {"label": int(label), "pred": int(probs[i].argmax()), "fold": fold, "epoch": epoch}
        | {f"logit_{k}": float(v) for k, v in enumerate(z[i])}
        | {"patient_id": patient_ids[i], "scan_id": scan_ids[i], "condition": condition}
        for i, label in enumerate(np.asarray(labels))
    ]


def read_predictions(path: PathLike) -> dict[str, Any]:
    """The arrays of a file of `prediction_rows`: probs and logits (N,K), label, fold, epoch (N,), and ids.

    Raises:
        ValueError: a column of the format is missing or a number cannot be read; names the file.
    """
    rows = read_csv(path)
    classes = sum(name.startswith("prob_") for name in rows[0]) if rows else 0
    try:
        return {
            "probs": np.array([[float(row[f"prob_{k}"]) for k in range(classes)] for row in rows]),
            "logits": np.array([[float(row[f"logit_{k}"]) for k in range(classes)] for row in rows]),
            **{key: np.array([int(row[key]) for row in rows]) for key in ("label", "pred", "fold", "epoch")},
            **{key: [row[key] for row in rows] for key in ("patient_id", "scan_id", "condition")},
        }
    except (KeyError, ValueError, TypeError) as error:
        raise ValueError(f"{path} is not a table of predictions: {error!r}") from error
