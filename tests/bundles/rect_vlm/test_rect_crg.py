"""CRG against values worked out by hand, and its limits."""

import numpy as np
import pytest
from rect_vlm.crg import crg_score

RANDOM = np.random.default_rng(0)


def labels(rate: float, shape: tuple[int, int] = (40, 18)) -> np.ndarray:
    table = (RANDOM.random(shape) < rate).astype(int)
    table[0, :2] = (0, 1)
    return table


def test_two_reports_by_hand() -> None:
    true = [[1, 0, 0, 0], [1, 1, 0, 0]]
    said = [[1, 1, 0, 0], [0, 1, 0, 0]]
    # 8 cells, 3 positives: r = 5/6, U = 5/2; two hits, one miss, one false alarm: s = 5/6 - 1 = -1/6.
    assert crg_score(said, true) == pytest.approx(2.5 / (5 + 1 / 6))


def test_one_finding_by_hand() -> None:
    # 10 cells, 2 positives: r = 2, U = 4; one hit, one miss, no false alarm: s = 0.
    true = [[1], [1]] + [[0]] * 8
    assert crg_score([[1], [0]] + [[0]] * 8, true) == pytest.approx(0.5)
    # The same with three false alarms: s = -3.
    assert crg_score([[1], [0]] + [[1]] * 3 + [[0]] * 5, true) == pytest.approx(4 / 11)


@pytest.mark.parametrize("rate", [0.05, 0.2, 0.5, 0.9])
def test_limits(rate: float) -> None:
    true = labels(rate)
    assert crg_score(true, true) == pytest.approx(1)
    assert crg_score(np.zeros_like(true), true) == pytest.approx(1 / 3)
    assert crg_score(np.ones_like(true), true) == pytest.approx(1 / 3)
    assert crg_score(1 - true, true) == pytest.approx(1 / 5)
    assert 1 / 5 < crg_score(labels(0.3), true) < 1


def test_every_right_cell_more_is_worth_something() -> None:
    true, said = labels(0.2), labels(0.2)
    wrong = np.argwhere(true != said)
    before = crg_score(said, true)
    for row, column in wrong[:20]:
        said[row, column] = true[row, column]
        after = crg_score(said, true)
        assert after > before
        before = after


@pytest.mark.parametrize(
    ("said", "true", "words"),
    [
        ([[0, 0]], [[0, 0]], "0 positives in 2"),
        ([[1, 1]], [[1, 1]], "2 positives in 2"),
        ([[0, 1, 0]], [[0, 1]], r"\(1, 3\)"),
        ([[0, 2]], [[0, 1]], "predicted must hold 0 and 1"),
        ([[0, 1]], [[-1, 1]], "true must hold 0 and 1"),
    ],
)
def test_what_has_no_score_is_refused(said: list, true: list, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        crg_score(said, true)
