"""Lesions of a training step: each scan its own, those that it has rather than others."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from rect_tiny_model import tiny_model, volumes
from rect_vlm import task_terms
from rect_vlm.losses import lesion_labels, localization_loss, of_lesions, pick_lesions
from rect_vlm.task_terms import TaskTerms
from torch import Tensor

K = 5


def scans(count: int, *present: int) -> tuple[Tensor, Tensor]:
    """Masks of scans that all have the lesions `present` and no other, all of them known."""
    masks = torch.zeros(count, K, 1, 2, 2, dtype=torch.uint8)
    masks[:, list(present), 0, 1, 0] = 1
    return masks, torch.ones(count, K, dtype=torch.bool)


def shares(lesions: Tensor) -> list[float]:
    """How often each lesion was taken, of all choices."""
    return (torch.bincount(lesions.flatten(), minlength=K) / lesions.numel()).tolist()


@pytest.mark.parametrize(("count", "kept"), [(1, 1), (3, 3), (9, K)])
def test_a_choice_has_its_length_and_no_lesion_twice(count: int, kept: int) -> None:
    lesions = pick_lesions(*scans(400, 1), count)
    assert lesions.shape == (400, kept)
    assert (lesions.diff(dim=1) > 0).all()
    assert set(lesions.flatten().tolist()) == set(range(K))


def test_the_seed_decides() -> None:
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(pick_lesions(*scans(40, 1), 2))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_every_scan_gets_its_own_lesions_first() -> None:
    masks, known = scans(3)
    masks[0, 1] = masks[1, 2:] = 1
    for _ in range(30):
        first, second, _ = (set(row) for row in pick_lesions(masks, known, 2, present=1.0).tolist())
        assert 1 in first
        assert second < {2, 3, 4}
    none = pick_lesions(*scans(4000), 1, present=1.0)
    assert shares(none) == pytest.approx([1 / K] * K, abs=0.03)


def test_among_those_present_none_is_preferred() -> None:
    lesions = pick_lesions(*scans(4000, 0, 3), 1, present=1.0)
    assert shares(lesions) == pytest.approx([0.5, 0, 0, 0.5, 0], abs=0.03)


def test_without_preference_all_lesions_are_alike() -> None:
    lesions = pick_lesions(*scans(4000, 2), 2, present=0.0)
    assert shares(lesions) == pytest.approx([1 / K] * K, abs=0.02)


def test_a_share_of_the_scans_prefers() -> None:
    for lesions, share in (
        (pick_lesions(*scans(8000, 4), 1), 0.7),
        (pick_lesions(*scans(8000, 4), 1, present=0.4), 0.4),
    ):
        assert shares(lesions)[4] == pytest.approx(share + (1 - share) / K, abs=0.02)


def test_a_mask_that_says_nothing_is_not_preferred() -> None:
    masks, known = scans(4000, 4)
    known[:, 4] = False
    assert shares(pick_lesions(masks, known, 1, present=1.0)) == pytest.approx([1 / K] * K, abs=0.03)


@pytest.mark.parametrize(("count", "present"), [(0, 0.7), (2, -0.1), (2, 1.1)])
def test_impossible_choices_are_refused(count: int, present: float) -> None:
    with pytest.raises(ValueError, match=f"got count={count} present={present}"):
        pick_lesions(*scans(2, 1), count, present)


@pytest.mark.parametrize("shape", [(), (4,), (2, 3, 2)])
def test_rows_of_the_lesions_are_those_of_a_loop(shape: tuple[int, ...]) -> None:
    values, lesions = torch.randn(6, K, *shape), torch.randint(0, K, (6, 3))
    found = of_lesions(values, lesions)
    assert found.shape == (6, 3, *shape)
    for scan in range(6):
        for place, lesion in enumerate(lesions[scan].tolist()):
            assert torch.equal(found[scan, place], values[scan, lesion])


def test_masks_labels_and_outlines_of_a_step_are_of_the_same_lesions(monkeypatch: pytest.MonkeyPatch) -> None:
    model, lesions = tiny_model(), torch.tensor([[1, 4], [0, 3]])
    batch: dict[str, Any] = {
        "image": volumes(2),
        "regions": None,
        "labels": torch.randint(-1, 2, (2, 18)).float(),
        "masks": (torch.rand(2, K, *model.geometry.img_size) < 0.2).to(torch.uint8),
        "mask_known": torch.tensor([[1, 0, 1, 1, 1], [1, 1, 0, 0, 1]]).bool(),
    }
    monkeypatch.setattr(task_terms, "pick_lesions", lambda *_: lesions)
    with torch.no_grad():
        found = TaskTerms(model)(batch, {"loc": 1.0}, ())
        whole = model.require("localizer")(model.encode(batch["image"]), batch["image"])
    out = {name: of_lesions(value, lesions) for name, value in whole.items()}
    true = (batch["masks"], batch["mask_known"], lesion_labels(batch["labels"]))
    masks, known, labels = (of_lesions(each, lesions) for each in true)
    expected = localization_loss(out, masks, known, labels)
    assert min(expected.values()) > 0
    for name, term in expected.items():
        torch.testing.assert_close(found[name], term, msg=name)
