"""Evidence lines: sides and levels as the patient has them, component by component, in millilitres."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from rect_vlm.evidence import NOTHING, describe
from rect_vlm.findings import FINDINGS, LESIONS
from rect_vlm.lesion_place import LOBES, Chest

SHAPE, SPACING = (30, 30, 40), (5.0, 5.0, 5.0)  # a voxel is 0.125 ml
PLEURAL, GLASS, NODULE = (
    LESIONS.index(name) for name in ("pleural_effusion", "ground_glass_opacity", "lung_nodule")
)


def _lobes() -> np.ndarray:
    """Lungs with a gap between them: low W is the patient's right, high D the top."""
    regions = np.full(SHAPE, 13, dtype=np.uint8)  # the spine and more of its kind: no lobe
    right, left = slice(4, 17), slice(23, 36)
    for region, levels, across in (
        (3, slice(2, 12), right), (2, slice(12, 18), right), (1, slice(18, 28), right),
        (5, slice(2, 15), left), (4, slice(15, 28), left),
    ):  # fmt: skip
        regions[levels, 4:26, across] = region
    return regions


def _masks(lesion: int, *boxes: tuple[int, int, int], size: int = 3) -> np.ndarray:
    """Probabilities that outline one cube per corner (D, H, W)."""
    masks = np.full((5, *SHAPE), 0.2, dtype=np.float32)
    for d, h, w in boxes:
        masks[lesion, d : d + size, h : h + size, w : w + size] = 0.9
    return masks


def _only(lines: list[str]) -> str:
    assert len(lines) == 1
    return lines[0].removeprefix("[FINDING] ")


@pytest.mark.parametrize(
    ("corner", "place"),
    [
        ((24, 21, 8), "right upper lobe posterior"),
        ((13, 13, 8), "right middle lobe"),
        ((4, 5, 8), "right lower lobe anterior"),
        ((24, 5, 30), "left upper lobe anterior"),
        ((4, 22, 30), "left lower lobe posterior"),
    ],
)
def test_lobes_are_named_by_overlap(corner: tuple[int, int, int], place: str) -> None:
    lines = describe(_masks(GLASS, corner), _lobes(), SPACING)
    assert _only(lines) == f"Ground glass opacity detected in {place}"


@pytest.mark.parametrize("regions", [None, np.zeros(SHAPE, dtype=np.uint8)])
@pytest.mark.parametrize(
    ("corner", "place"),
    [
        ((26, 25, 4), "right upper zone posterior"),
        ((14, 13, 30), "left middle zone"),
        ((1, 2, 33), "left lower zone anterior"),
    ],
)
def test_without_lobes_sides_and_thirds_of_the_volume_are_told(
    corner: tuple[int, int, int], place: str, regions: np.ndarray | None
) -> None:
    assert _only(describe(_masks(NODULE, corner), regions, SPACING)) == f"Lung nodule detected in {place}"


def test_thirds_and_midline_are_those_of_the_body_and_not_of_the_padding() -> None:
    image = np.full(SHAPE, -1.0)
    image[15:30, 5:25, 0:20] = 0.0  # the whole body lies in the upper right quarter of the volume
    masks = _masks(NODULE, (15, 13, 14))
    by_body, by_volume = (describe(masks, None, SPACING, image=each) for each in (image, None))
    assert _only(by_body) == "Lung nodule detected in left lower zone"
    assert _only(by_volume) == "Lung nodule detected in right middle zone"


def test_lesions_beside_the_lungs_belong_to_the_nearest_lobe() -> None:
    behind = _masks(PLEURAL, (3, 26, 28))
    assert (_lobes()[3:6, 26:29, 28:31] == 13).all()
    assert _only(describe(behind, _lobes(), SPACING)) == (
        "Pleural effusion detected in left lower lobe posterior"
    )


def test_both_sides_of_a_bilateral_effusion_are_named() -> None:
    both = _masks(PLEURAL, (3, 23, 8), (3, 23, 30))
    assert _only(describe(both, _lobes(), SPACING)) == (
        "Pleural effusion detected in right lower lobe posterior and left lower lobe posterior (bilateral)"
    )
    assert _only(describe(both, None, SPACING)) == (
        "Pleural effusion detected in right lower zone posterior and left lower zone posterior (bilateral)"
    )
    joined = both.copy()
    joined[PLEURAL, 4, 24, 8:33] = 0.9  # one component from side to side is still on both
    assert _only(describe(joined, None, SPACING)).endswith("(bilateral)")


def test_places_are_told_once_in_order_and_front_and_back_cancel() -> None:
    many = _masks(NODULE, (24, 5, 30), (4, 5, 8), (4, 22, 8), (9, 22, 8))
    assert _only(describe(many, _lobes(), SPACING)) == (
        "Lung nodule detected in right lower lobe and left upper lobe anterior (bilateral)"
    )
    three = _masks(GLASS, (24, 21, 8), (13, 13, 8), (4, 5, 8))
    assert _only(describe(three, _lobes(), SPACING)).endswith(
        "in right upper lobe posterior, right middle lobe and right lower lobe anterior"
    )


@pytest.mark.parametrize(("lesion", "least_ml"), [(NODULE, 0.03), (GLASS, 0.1)])
def test_each_component_must_reach_the_least_volume(lesion: int, least_ml: float) -> None:
    enough = (np.cbrt(least_ml * 1000 / 8) + 1e-3,) * 3  # mm: eight voxels are just enough
    scattered = _masks(lesion, (3, 3, 3), (20, 20, 20), size=2)
    assert describe(scattered, None, enough) != [NOTHING]
    assert describe(scattered, None, tuple(0.99 * mm for mm in enough)) == [NOTHING]


def test_an_outline_needs_more_than_half_probability() -> None:
    masks = _masks(GLASS, (4, 4, 4))
    assert describe(np.where(masks > 0.5, 0.5, masks), None, SPACING) == [NOTHING]
    assert describe(torch.from_numpy(masks > 0.5).to(torch.uint8), None, SPACING) != [NOTHING]


def test_pericardial_effusion_has_a_place_of_its_own() -> None:
    lines = describe(_masks(LESIONS.index("pericardial_effusion"), (10, 8, 18)), _lobes(), SPACING)
    assert _only(lines) == "Pericardial effusion detected in the pericardial space"


def test_classified_findings_follow_unless_their_lesion_was_outlined() -> None:
    found = torch.zeros(18)
    for name in ("Emphysema", "Lung opacity", "Pleural effusion"):
        found[FINDINGS.index(name)] = 0.7
    lines = describe(_masks(GLASS, (4, 5, 8)), _lobes(), SPACING, found)
    assert lines[1:] == ["[FINDING] Emphysema (classifier)", "[FINDING] Pleural effusion (classifier)"]
    assert describe(_masks(GLASS), None, SPACING, found, thresholds=0.7) == [NOTHING]
    least = np.full(18, 0.9)
    least[FINDINGS.index("Emphysema")] = 0.6
    assert describe(_masks(GLASS), None, SPACING, found, least) == ["[FINDING] Emphysema (classifier)"]
    assert describe(_masks(GLASS), None, SPACING, -torch.ones(18)) == [NOTHING]  # unknown labels


def test_a_lesion_is_placed_by_all_of_it_and_not_by_its_middle() -> None:
    chest = Chest.of(_lobes(), None, SHAPE, SPACING)
    column = np.argwhere(_lobes() == 1)
    assert chest.places(column) == {LOBES[0]: ""}
    half = np.argwhere((_lobes() == 1) | (_lobes() == 3))
    assert chest.places(half) == {LOBES[0]: "", LOBES[2]: ""}


def test_bad_input_is_named() -> None:
    masks = _masks(GLASS)
    with pytest.raises(ValueError, match=r"masks must be \(5, D, H, W\), got \(4, 30, 30, 40\)"):
        describe(masks[:4], None, SPACING)
    with pytest.raises(ValueError, match=r"regions must have the masks' shape"):
        describe(masks, np.zeros((2, 2, 2)), SPACING)
    with pytest.raises(ValueError, match="spacing must be three positive mm"):
        describe(masks, None, (1.0, 0.0, 1.0))
    with pytest.raises(ValueError, match=r"probabilities must be \(18,\)"):
        describe(masks, None, SPACING, torch.zeros(5))
