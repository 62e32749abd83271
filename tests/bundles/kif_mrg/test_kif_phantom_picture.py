"""The pictures of the simulated radiographs: they show the facts, on the right side, and nothing else."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from kif_mrg.phantom_facts import Effusion, Facts, Lesion, Opacity, visible_zones
from kif_mrg.phantom_picture import HEART_RATIO, THORAX, draw_picture

NOTHING = Facts("normal", None, None, None, None, 0.03)


def brightness(facts: Facts, seed: int, size: int = 96) -> np.ndarray:
    return draw_picture(facts, np.random.default_rng(seed), size).astype(float)


VISIBLE = [
    ({"effusion": Effusion(("left",), size)}, "right", 12)  # a side of the picture, pixels of 96 x 96
    for size in ("small", "moderate", "large")
]
VISIBLE += [
    ({"effusion": Effusion(("right",), "small"), "heart": heart}, "left", 12) for heart in HEART_RATIO
]
VISIBLE += [({"effusion": Effusion(("left",), "small"), "heart": heart}, "right", 6) for heart in HEART_RATIO]
VISIBLE += [
    ({kind: make(side, zone)}, "left" if side == "right" else "right", 5)
    for side, zone in visible_zones("normal", None)
    for kind, make in (("lesion", lambda side, zone: Lesion(side, zone, 20)), ("opacity", Opacity))
]


@pytest.mark.parametrize(("found", "half", "pixels"), VISIBLE)
def test_every_finding_shows_on_its_side_and_nowhere_else(found: dict, half: str, pixels: int) -> None:
    """The patient's right is on the left of the picture."""
    with_it = dataclasses.replace(NOTHING, **found)
    finding = next(name for name in ("effusion", "lesion", "opacity") if getattr(with_it, name))
    without = dataclasses.replace(with_it, **{finding: None})
    for seed in range(6):
        change = brightness(with_it, seed) - brightness(without, seed)
        halves = {"left": change[:, :48], "right": change[:, 48:]}
        assert (halves.pop(half) > 20).sum() >= pixels
        (other,) = halves.values()
        assert (np.abs(other) > 5).sum() == 0


def test_catheter_is_a_thin_line_from_its_side_to_the_midline() -> None:
    for side, sign in (("right", -1), ("left", 1)):
        change = brightness(dataclasses.replace(NOTHING, catheter=side), 4) - brightness(NOTHING, 4)
        rows, columns = np.nonzero(change > 25)
        assert 30 < len(rows) < 0.04 * change.size
        assert sign * (columns.mean() - 48) > 0
        assert abs(columns[rows.argmax()] - 48) < 12  # the tip
        assert sign * (columns[columns.argmax() if sign > 0 else columns.argmin()] - 48) > 25


def test_larger_facts_make_larger_shadows() -> None:
    for seed in range(4):
        hearts = [brightness(dataclasses.replace(NOTHING, heart=h), seed).sum() for h in HEART_RATIO]
        fluid = [
            brightness(dataclasses.replace(NOTHING, effusion=Effusion(("right",), s)), seed).sum()
            for s in ("small", "moderate", "large")
        ]
        lesions = [
            brightness(dataclasses.replace(NOTHING, lesion=Lesion("left", "mid", mm)), seed).sum()
            for mm in (20, 28, 44)
        ]
        for sums in (hearts, fluid, lesions):
            assert sums == sorted(sums)
            assert sums[0] < sums[1] < sums[2]


def test_heart_reaches_as_far_as_its_ratio_says() -> None:
    for name, (low, high) in HEART_RATIO.items():
        for seed in range(3):
            facts = dataclasses.replace(NOTHING, heart=name, noise=0.0)
            row = brightness(facts, seed)[56:64].mean(axis=0)  # the height of the heart
            bright = row > (row[15:80].min() + row.max()) / 2
            width = bright[15:82].sum() * 2 / 96 / (2 * THORAX)
            assert low - 0.06 < width < high + 0.06


def test_facts_show_at_any_size_and_a_small_one_is_refused() -> None:
    facts = dataclasses.replace(NOTHING, effusion=Effusion(("left",), "large"))
    for size in (64, 224):
        change = brightness(facts, 0, size) - brightness(NOTHING, 0, size)
        assert change.shape == (size, size)
        assert 0.05 < (change > 20).mean() < 0.3
    with pytest.raises(ValueError, match="at least 64 pixels"):
        brightness(NOTHING, 0, 32)
