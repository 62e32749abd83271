"""Patient-grouped, grade-stratified cross-validation folds."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from react_kd.cases import UNGRADED, grade_of

logger = logging.getLogger(__name__)


def fold_cases(
    cases: Sequence[Mapping[str, Any]], fold: int, folds: int = 3, seed: int = 0
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Split cases into (training, validation) of one fold; no patient is on both sides.

    Graded cases are stratified by grade over patients. Ungraded cases only ever train, and an ungraded scan
    of a validation patient is left out. The split depends on the seed and the ids, not on the order of the
    cases.

    Raises ValueError when fold is outside 0..folds-1, or there are fewer graded patients than folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    if folds < 2 or not 0 <= fold < folds:
        raise ValueError(f"fold must be in 0..folds-1 with folds >= 2, got fold={fold} of folds={folds}")
    ordered = sorted((dict(case) for case in cases), key=lambda case: (case["patient_id"], case["scan_id"]))
    graded = [case for case in ordered if grade_of(case) != UNGRADED]
    grades = [grade_of(case) for case in graded]
    patients = [case["patient_id"] for case in graded]
    if len(set(patients)) < folds:
        raise ValueError(f"folds={folds} need as many graded patients, got {len(set(patients))}")
    _warn_if_rare(grades, patients, folds)

    splitter = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a rare grade, which is logged above
        _, held_out = list(splitter.split(graded, grades, groups=patients))[fold]
    validation = [graded[i] for i in held_out]
    validation_patients = {case["patient_id"] for case in validation}
    training = [case for case in ordered if case["patient_id"] not in validation_patients]
    left_out = len(ordered) - len(training) - len(validation)
    if left_out:
        logger.info("fold %d: %d ungraded scans of validation patients are left out", fold, left_out)
    return training, validation


def _warn_if_rare(grades: Sequence[int], patients: Sequence[str], folds: int) -> None:
    for grade in sorted(set(grades)):
        count = len({p for p, g in zip(patients, grades, strict=True) if g == grade})
        if count < folds:
            logger.warning("grade %d has %d patients for %d folds: some fold lacks it", grade, count, folds)
