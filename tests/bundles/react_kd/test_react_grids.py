"""Voxel grids in the patient's space: equality whatever the axes, and coverage."""

from __future__ import annotations

import numpy as np
import pytest
from react_case_files import AFFINE, SHAPE
from react_kd.grids import covered, same_grid


def test_grids_agree_whatever_their_axes() -> None:
    flipped = AFFINE @ np.array([[-1.0, 0, 0, 39], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    swapped = AFFINE[:, [1, 0, 2, 3]]
    assert same_grid(SHAPE, AFFINE, SHAPE, flipped)
    assert same_grid(SHAPE, AFFINE, (36, 40, 20), swapped)
    assert not same_grid(SHAPE, AFFINE, SHAPE, AFFINE @ np.diag([1.01, 1, 1, 1]))


def test_covered_share() -> None:
    box = [[0, 0, 0], [9, 9, 9]]
    assert covered(box, np.eye(4), (10, 10, 10), np.eye(4)) == 1.0
    half = np.eye(4)
    half[0, 3] = 5
    assert covered(box, np.eye(4), (10, 10, 10), half) == pytest.approx(0.5, abs=0.03)
