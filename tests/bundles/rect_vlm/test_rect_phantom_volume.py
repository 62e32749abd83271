"""The volumes of the simulated chest CTs: real HU and places, and the findings where the facts say."""

from __future__ import annotations

import dataclasses

import nibabel as nib
import numpy as np
import pytest
from rect_vlm.findings import LESIONS
from rect_vlm.phantom_chest import AORTA, HEART, LIVER, LOBE_ID, RIB_LEFT_1, RIB_RIGHT_1, SPLEEN, TRACHEA
from rect_vlm.phantom_facts import LOBES, Facts, Fluid, Focus, side_of
from rect_vlm.phantom_volume import Scan, draw_scan
from rect_vlm.regions import from_totalsegmentator
from scipy import ndimage

FOCAL = Facts(
    nodules=(Focus("left upper", 28), Focus("right middle", 16)),
    ground_glass=(Focus("right upper", 60),),
    consolidation=(Focus("left lower", 60),),
    effusion=Fluid(("right",), 40),
    pericardial_mm=18,
)


def draw(facts: Facts, patient: int = 0, scanner: int = 0) -> Scan:
    return draw_scan(facts, np.random.default_rng([1, patient]), np.random.default_rng([2, scanner]))


def center(mask: np.ndarray) -> np.ndarray:
    return np.argwhere(mask).mean(axis=0)


def median(scan: Scan, where: np.ndarray) -> float:
    return float(np.median(scan.hu[where]))


@pytest.fixture(scope="module")
def normal() -> Scan:
    return draw(Facts())


@pytest.fixture(scope="module")
def focal() -> Scan:
    return draw(FOCAL)


def test_axes_are_superior_posterior_left_with_spacing_of_thick_slices(normal: Scan) -> None:
    assert nib.aff2axcodes(normal.affine) == ("S", "P", "L")
    spacing = np.linalg.norm(normal.affine[:3, :3], axis=0)
    assert 7 <= spacing[0] <= 9
    assert 3.3 <= spacing[1] <= 3.7
    assert spacing[1] == pytest.approx(spacing[2])
    assert 270 < normal.hu.shape[0] * spacing[0] < 330
    assert normal.hu.dtype == np.int16
    assert normal.hu.min() >= -1024


def test_tissues_have_their_hounsfield_units(normal: Scan) -> None:
    lungs = (normal.structures >= 10) & (normal.structures <= 14)
    assert -900 < median(normal, lungs) < -800
    assert 25 < median(normal, normal.structures == HEART) < 60
    assert 35 < median(normal, normal.structures == LIVER) < 80
    ribs = (normal.structures >= RIB_LEFT_1) & (normal.structures < RIB_RIGHT_1 + 12)
    assert median(normal, ribs) > 130
    assert median(normal, normal.structures == TRACHEA) < -900
    assert (
        median(normal, np.broadcast_to(np.arange(normal.hu.shape[1])[:, None] == 0, normal.hu.shape)) < -950
    )
    vessels = draw(Facts(contrast=True))
    assert median(vessels, vessels.structures == AORTA) > 130 > median(normal, normal.structures == AORTA)


def test_anatomy_lies_where_it_should(normal: Scan) -> None:
    at = {lobe: center(normal.structures == label) for lobe, label in LOBE_ID.items()}
    middle = center(normal.structures == TRACHEA)[2]
    for lobe, place in at.items():
        assert (place[2] > middle) == (side_of(lobe) == "left"), lobe
    assert at["right upper"][0] > max(at["right middle"][0], at["right lower"][0])
    assert at["right lower"][1] > at["right middle"][1]  # further back
    assert at["left upper"][0] > at["left lower"][0]
    assert at["left upper"][1] < at["left lower"][1]
    assert center(normal.structures == HEART)[2] > middle + 2
    assert center(normal.structures == LIVER)[2] < middle < center(normal.structures == SPLEEN)[2]
    regions = from_totalsegmentator(normal.structures)
    assert set(np.unique(regions)) >= {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14, 15, 16, 17, 18}


def test_masks_are_apart_and_show_the_density_of_their_lesion(focal: Scan) -> None:
    assert tuple(focal.lesions) == LESIONS
    assert np.sum(list(focal.lesions.values()), axis=0).max() == 1
    low_high = {
        "pericardial_effusion": (-15, 25),
        "pleural_effusion": (-15, 25),
        "consolidation": (-40, 60),
        "ground_glass_opacity": (-680, -520),
        "lung_nodule": (-60, 70),
    }
    for lesion, mask in focal.lesions.items():
        inner = ndimage.binary_erosion(mask, np.ones((1, 3, 3))) if lesion != "lung_nodule" else mask
        assert low_high[lesion][0] < median(focal, inner) < low_high[lesion][1], lesion


def test_lesions_lie_in_their_lobe_and_fluid_in_none(focal: Scan) -> None:
    for lesion, fact in (
        ("lung_nodule", FOCAL.nodules),
        ("ground_glass_opacity", FOCAL.ground_glass),
        ("consolidation", FOCAL.consolidation),
    ):
        inside = np.bincount(focal.structures[focal.lesions[lesion]], minlength=120)
        own = sum(inside[LOBE_ID[focus.lobe]] for focus in fact)
        assert own > 0.85 * inside.sum(), lesion
        assert all(inside[LOBE_ID[focus.lobe]] > 0 for focus in fact)
    assert not focal.structures[focal.lesions["pleural_effusion"]].any()
    assert center(focal.lesions["pleural_effusion"])[2] < center(focal.structures == TRACHEA)[2]


def test_sizes_are_those_of_the_facts() -> None:
    for mm in (14, 20, 28):
        scan = draw(Facts(nodules=(Focus("right lower", mm),)), patient=mm)
        volume = scan.lesions["lung_nodule"].sum() * abs(np.linalg.det(scan.affine[:3, :3]))
        assert (6 * volume / np.pi) ** (1 / 3) == pytest.approx(mm, abs=3)
    fluid = [
        draw(Facts(effusion=Fluid(("left",), mm))).lesions["pleural_effusion"].sum() for mm in (15, 30, 55)
    ]
    heart = [draw(Facts(cardiomegaly=size)).structures == HEART for size in (None, "mild", "severe")]
    for grows in (fluid, [mask.sum() for mask in heart]):
        assert grows[0] < grows[1] < grows[2]


def test_without_a_finding_the_rest_of_the_picture_stays() -> None:
    for lesion, fact in (("lung_nodule", {"nodules": ()}), ("consolidation", {"consolidation": ()})):
        with_it, without = draw(FOCAL), draw(dataclasses.replace(FOCAL, **fact))
        near = ndimage.binary_dilation(with_it.lesions[lesion], np.ones((3, 3, 3)), iterations=3)
        assert not without.lesions[lesion].any()
        assert np.array_equal(with_it.hu[~near], without.hu[~near])
        assert (np.abs(with_it.hu.astype(int) - without.hu)[near] > 300).sum() > 20


def test_another_scanner_sees_the_same_patient(focal: Scan) -> None:
    again, other = draw(FOCAL), draw(FOCAL, scanner=1)
    assert np.array_equal(again.hu, focal.hu)
    assert np.array_equal(again.structures, focal.structures)
    assert not np.array_equal(other.affine, focal.affine)
    for lesion in LESIONS:
        places = [nib.affines.apply_affine(s.affine, center(s.lesions[lesion])) for s in (focal, other)]
        if lesion in ("pericardial_effusion", "pleural_effusion"):
            assert np.abs(places[0] - places[1]).max() < 6, lesion


def test_the_worst_of_everything_can_be_drawn() -> None:
    severe = dict.fromkeys(
        ("arterial_calcification", "cardiomegaly", "coronary_calcification", "emphysema", "mosaic"), "severe"
    )
    worst = Facts(
        **severe,  # type: ignore[arg-type]
        pericardial_mm=24,
        hernia_mm=72,
        nodes=("prevascular", "subcarinal", "right hilar", "left hilar"),
        nodes_mm=34,
        effusion=Fluid(("right", "left"), 60),
        atelectasis=("right middle", "right lower", "left lower"),
        nodules=(Focus("right middle", 30),) * 3,
        ground_glass=(Focus("left upper", 75),),
        consolidation=(Focus("right upper", 75),),
        bronchiectasis=("right middle",),
    )
    for patient in range(4):
        scan = draw(worst, patient)
        assert all(mask.any() for mask in scan.lesions.values())
        assert all((scan.structures == LOBE_ID[lobe]).any() for lobe in LOBES)
