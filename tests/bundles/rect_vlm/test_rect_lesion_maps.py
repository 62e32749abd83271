"""Lesions on the voxels of the file: what is resampled in a box is what is resampled whole."""

from __future__ import annotations

import dataclasses

import nibabel as nib
import numpy as np
import pytest
import torch
from rect_tiny_ctrate import AFFINE, GEOMETRY, chest
from rect_vlm.case_row import place_of, share_seen
from rect_vlm.evidence import describe
from rect_vlm.findings import LESIONS
from rect_vlm.geometry import GEOMETRIES
from rect_vlm.lesion_maps import lesion_box, lesion_maps
from rect_vlm.studies import Study, read_studies

TURN = nib.eulerangles.euler2mat(0.15, 0.1, 0.05)


def study(oblique: bool = False) -> Study:
    affine = nib.affines.from_matvec(TURN, [0, 0, 0]) @ AFFINE if oblique else AFFINE
    axes = nib.orientations.axcodes2ornt("LSP" if oblique else "RAS")
    turned = nib.Nifti1Image(chest()[0], affine).as_reoriented(axes)
    return next(iter(read_studies(turned, None, GEOMETRY)))


def blobs(*places: tuple[int, int, int, int]) -> torch.Tensor:
    """Probabilities (5, D, H, W): of lesion k a smooth blob at d, h, w."""
    masks = torch.zeros(5, *GEOMETRY.img_size)
    d, h, w = torch.meshgrid(*map(torch.arange, GEOMETRY.img_size), indexing="ij")
    for k, *(a, b, c) in places:
        masks[k] = torch.exp(-((d - a) ** 2 + (h - b) ** 2 + (w - c) ** 2) / 8.0)
    return masks


@pytest.mark.parametrize("oblique", [False, True])
def test_the_box_holds_the_same_as_the_whole_grid(oblique: bool) -> None:
    scan, masks = study(oblique), blobs((1, 14, 25, 13), (4, 18, 20, 20), (2, 3, 3, 3))
    quick, whole = lesion_maps(scan, masks), lesion_maps(scan, masks, keep=True)
    assert quick.labels.shape == tuple(scan.source_shape.tolist())
    np.testing.assert_array_equal(quick.labels, whole.labels)
    assert quick.volumes == pytest.approx(whole.volumes)
    assert set(np.unique(quick.labels)) == {0, 2, 3, 5}
    assert quick.probabilities == {}
    assert list(whole.probabilities) == list(LESIONS)
    box = lesion_box(scan, masks[1] > 0.5)
    outside = whole.probabilities["pleural_effusion"].copy()
    outside[box] = 0
    assert outside.max() <= 0.5
    assert np.prod([side.stop - side.start for side in box]) < 0.2 * outside.size


def test_the_volume_is_that_of_the_blob() -> None:
    maps = lesion_maps(study(), blobs((0, 15, 20, 20)))
    radius = np.sqrt(8 * np.log(2)) * 0.8  # cm, voxels of 8 mm
    assert maps.volumes["pericardial_effusion"] == pytest.approx(4 / 3 * np.pi * radius**3, rel=0.15)


def test_where_lesions_overlap_the_likelier_is_drawn_and_both_are_measured() -> None:
    masks = blobs((0, 15, 20, 20), (3, 15, 20, 22))
    masks[3] *= 0.9
    maps = lesion_maps(study(), masks)
    alone = [lesion_maps(study(), masks * (torch.arange(5) == k).view(5, 1, 1, 1)) for k in (0, 3)]
    for one in alone:
        lesion = max(one.volumes, key=lambda name, one=one: one.volumes[name])
        assert maps.volumes[lesion] == one.volumes[lesion]
    both = (alone[0].labels == 1) & (alone[1].labels == 4)
    assert both.any()
    assert set(np.unique(maps.labels[both])) == {1, 4}
    assert ((maps.labels > 0) == ((alone[0].labels > 0) | (alone[1].labels > 0))).all()


def test_a_lesion_in_the_padding_or_nowhere_is_none() -> None:
    scan = study()
    assert lesion_box(scan, torch.zeros(GEOMETRY.img_size, dtype=torch.bool)) is None
    narrow = dataclasses.replace(scan, source_shape=torch.tensor([40, 36, 4]))
    maps = lesion_maps(narrow, blobs((4, 30, 20, 20)))
    assert maps.labels.shape == (40, 36, 4)
    assert not maps.labels.any()
    assert set(maps.volumes.values()) == {0.0}


def test_a_study_in_model_space_has_no_voxels_of_its_own() -> None:
    with pytest.raises(ValueError, match="one in model space"):
        lesion_maps(Study(torch.zeros(1, 1, *GEOMETRY.img_size), None, None), blobs((0, 15, 20, 20)))


def test_the_place_is_what_the_evidence_tells() -> None:
    lines = describe(blobs((1, 10, 30, 30)), None, (8.0,) * 3, torch.ones(18))
    assert place_of("pleural_effusion", lines) == lines[0].split(" detected in ")[1]
    assert place_of("pleural_effusion", lines).startswith("left ")
    assert place_of("lung_nodule", lines) is None


def test_the_share_that_is_seen_follows_the_axes() -> None:
    sides = {"R": 448, "A": 300, "S": 704}  # mm, against 384, 384 and 352
    for codes in ("RAS", "SAR", "ASR"):
        shape = [sides[code] for code in codes]
        axes = nib.orientations.axcodes2ornt(codes)
        affine = nib.orientations.inv_ornt_aff(nib.orientations.ornt_transform(
            nib.orientations.axcodes2ornt("RAS"), axes), [sides[c] for c in "RAS"])  # fmt: skip
        seen = share_seen(shape, np.linalg.inv(np.linalg.inv(affine)), GEOMETRIES["cpu"])
        assert seen == pytest.approx(384 / 448 * 352 / 704)
    assert share_seen((700, 700, 900), np.eye(4), GEOMETRIES["seed"]) == 1.0
