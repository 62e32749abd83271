"""CRG: one figure for the labels of generated reports that weighs misses and false alarms by prevalence."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def crg_score(predicted: npt.ArrayLike, true: npt.ArrayLike) -> float:
    """CRG of labels (n, K) of 0 and 1 over all n K cells (Hamamci et al. 2025).

    With X cells, A true positives in them and r = (X - A) / 2A, a hit counts r, a miss -r and a false alarm
    -1; the sum s becomes U / (2U - s) with U = (X - A) / 2. All right is 1; nothing stated and everything
    stated are both 1/3, hence a constant cannot gain; all wrong is 1/5.

    Raises:
        ValueError: other shapes, a value that is not 0 or 1, and true labels all 0 or all 1, for which CRG
            is not defined.
    """
    said, wanted = np.asarray(predicted), np.asarray(true)
    if said.shape != wanted.shape or wanted.ndim != 2:
        raise ValueError(f"predicted and true must both be (n, K), got {said.shape} and {wanted.shape}")
    for name, table in (("predicted", said), ("true", wanted)):
        if not np.isin(table, (0, 1)).all():
            raise ValueError(f"{name} must hold 0 and 1, got {np.unique(table)[:5].tolist()}")
    cells, positives = wanted.size, int(wanted.sum())
    if positives in (0, cells):
        raise ValueError(
            f"CRG needs positive and negative labels, got {positives} positives in {cells} true labels"
        )
    hits = int((said * wanted).sum())
    false_alarms = int(said.sum()) - hits
    worth = (cells - positives) / (2 * positives)
    most = (cells - positives) / 2
    score = worth * hits - worth * (positives - hits) - false_alarms
    return most / (2 * most - score)
