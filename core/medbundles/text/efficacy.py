"""Clinical efficacy of generated reports: agreement of the conditions labelled in two texts."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from medbundles.text.assertion import POSITIVE, UNCERTAIN
from medbundles.text.chest_phrases import CHEXPERT_CONDITIONS

# The five classes of the CheXpert competition (Irvin et al., AAAI 2019).
COMPETITION_CONDITIONS = ("atelectasis", "cardiomegaly", "consolidation", "edema", "pleural_effusion")
_COMPETITION = [CHEXPERT_CONDITIONS.index(name) for name in COMPETITION_CONDITIONS]

Counts = npt.NDArray[np.int64]


def clinical_efficacy(
    predicted: npt.ArrayLike,
    true: npt.ArrayLike,
    uncertain: Literal["negative", "positive"] = "negative",
    empty: Literal["zero", "one"] = "zero",
) -> dict[str, float]:
    """Precision, recall and F1 of positive conditions: states (N, 14) in CheXbert coding, predicted and true.

    Returns ce_<average>_<precision|recall|f1> over the 14 conditions and ce5_... over the five of the
    competition; average is example (mean over reports: the clinical efficacy of PromptMRG, AAAI 2024,
    arXiv 2308.12604), micro or macro (mean over conditions). `empty` is what a report or condition without a
    positive on either side scores: with "zero", as published, a report that rightly states nothing counts as
    wrong; share_without_positives is the share of true reports of that kind.

    Raises:
        ValueError: shapes that differ or are not (N, 14), no report, a state outside 0..3, an unknown mode.
    """
    if uncertain not in ("negative", "positive") or empty not in ("zero", "one"):
        raise ValueError(
            "uncertain must be 'negative' or 'positive' and empty 'zero' or 'one', "
            f"got uncertain={uncertain!r}, empty={empty!r}"
        )
    states = _checked(predicted, "predicted"), _checked(true, "true")
    if states[0].shape != states[1].shape:
        raise ValueError(
            f"predicted and true must hold the same reports, got {states[0].shape} and {states[1].shape}"
        )
    counted = (POSITIVE,) if uncertain == "negative" else (POSITIVE, UNCERTAIN)
    said, wanted = (np.isin(table, counted) for table in states)
    worth = 1.0 if empty == "one" else 0.0
    scores: dict[str, float] = {}
    for prefix, columns in (("ce", slice(None)), ("ce5", _COMPETITION)):
        scores |= _averages(said[:, columns], wanted[:, columns], worth, prefix)
        name = "share_without_positives" if prefix == "ce" else f"{prefix}_share_without_positives"
        scores[name] = float((~wanted[:, columns].any(axis=1)).mean())
    return scores


def _checked(states: npt.ArrayLike, name: str) -> Counts:
    table = np.asarray(states)
    if table.ndim != 2 or table.shape[1] != len(CHEXPERT_CONDITIONS) or not len(table):
        raise ValueError(f"{name} must be (N, {len(CHEXPERT_CONDITIONS)}) with N > 0, got {table.shape}")
    if not np.isin(table, range(4)).all():
        strange = sorted(set(np.unique(table).tolist()) - set(range(4)))
        raise ValueError(f"{name} must hold states 0, 1, 2 or 3, got {strange[:5]}")
    return table


def _averages(
    said: npt.NDArray[np.bool_], wanted: npt.NDArray[np.bool_], worth: float, prefix: str
) -> dict[str, float]:
    scores = {}
    for average, axis in (("example", 1), ("micro", None), ("macro", 0)):
        both, only_said, only_wanted = (
            np.sum(cells, axis=axis) for cells in (said & wanted, said & ~wanted, ~said & wanted)
        )
        ratios = {
            "precision": (both, both + only_said),
            "recall": (both, both + only_wanted),
            "f1": (2 * both, 2 * both + only_said + only_wanted),
        }
        nothing = both + only_said + only_wanted == 0
        for name, (hits, total) in ratios.items():
            values = np.where(nothing, worth, hits / np.maximum(total, 1))
            scores[f"{prefix}_{average}_{name}"] = float(values.mean())
    return scores
