"""Regions: table of structures, shares of patches against a plain loop, geometry in closed form."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from rect_vlm.regions import REGIONS, from_totalsegmentator, patch_to_region, region_geometry
from torch import Tensor

PATCH, GRID = (2, 3, 4), (4, 3, 2)
SIZE = (8, 9, 8)


def _random_ids(batch: int = 2) -> Tensor:
    return torch.randint(0, 21, (batch, 1, *SIZE), dtype=torch.uint8)


def _boxes(size: tuple[int, int, int]) -> list[tuple[slice, ...]]:
    """Patches of SIZE in the order of the tokens."""
    starts = np.ndindex(*(s // p for s, p in zip(size, PATCH, strict=True)))
    return [tuple(slice(i * p, (i + 1) * p) for i, p in zip(at, PATCH, strict=True)) for at in starts]


@pytest.mark.parametrize(
    ("structure", "region"),
    [(12, "lung_upper_lobe_right"), (11, "lung_lower_lobe_left"), (51, "heart"), (61, "heart"), (79, "spine"),
     (92, "ribs"), (117, "ribs"), (118, "ribs"), (116, "sternum_and_shoulders"), (87, "other_abdomen")],
)  # fmt: skip
def test_a_structure_belongs_to_its_region(structure: int, region: str) -> None:
    assert from_totalsegmentator(np.array([structure])).item() == REGIONS.index(region) + 1


def test_there_are_twenty_regions_and_the_rest_is_background() -> None:
    ids = from_totalsegmentator(np.arange(119))
    assert len(set(REGIONS)) == 20
    assert sorted(set(ids.tolist())) == list(range(21))
    background = {0, 21, 22, 25, 65, 66, 67, 68, *range(75, 79), *range(80, 86), 88, 89, 90, 91}
    assert set(np.flatnonzero(ids == 0).tolist()) == background


def test_the_kind_of_the_label_map_is_kept() -> None:
    array = np.full((2, 3, 4), 10, dtype=np.int16)
    meta = MetaTensor(torch.from_numpy(array).float(), affine=torch.diag(torch.tensor([2.0, 3, 4, 1])))
    for labels in (array, torch.from_numpy(array), meta):
        ids = from_totalsegmentator(labels)
        assert type(ids) is type(labels)
        assert ids.shape == (2, 3, 4)
        assert (ids == 4).all()
    torch.testing.assert_close(from_totalsegmentator(meta).affine, meta.affine)
    assert from_totalsegmentator(meta).dtype == torch.uint8


@pytest.mark.parametrize("wrong", [119, -1, 1.5, float("nan")])
def test_values_that_are_no_class_are_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match=r"classes 0 \.\.\. 118 of TotalSegmentator"):
        from_totalsegmentator(np.array([1, wrong]))


def test_a_real_segmentation_agrees_with_its_own_names_and_sides(sample: Callable[[str], Path]) -> None:
    folder = sample("chest_ct")
    with (folder / "structures.csv").open(newline="", encoding="utf-8") as stream:
        names = {row["structure"]: int(row["id"]) for row in csv.DictReader(stream)}
    word = {"rib_": "ribs", "costal": "ribs", "vertebrae": "spine", "kidney": "kidneys_and_adrenals"}
    expected = {name: region for name in names for start, region in word.items() if name.startswith(start)}
    expected |= {name: name for name in names if name in REGIONS} | {"thyroid_gland": "thyroid"}
    assert len(expected) > 60
    for name, region in expected.items():
        assert from_totalsegmentator(np.array(names[name])) == REGIONS.index(region) + 1, name

    image = nib.load(folder / "mask.nii.gz")
    ids = from_totalsegmentator(np.asarray(image.dataobj)[::8, ::8, ::4])
    across = {  # mm towards the right of the patient
        region: (np.argwhere(ids == REGIONS.index(region) + 1) * (8, 8, 4) @ image.affine[0, :3]).mean()
        for region in ("lung_lower_lobe_right", "heart", "lung_lower_lobe_left")
    }
    assert list(across) == sorted(across, key=lambda region: -across[region])


def test_shares_equal_a_loop_over_patches_and_regions() -> None:
    ids = _random_ids()
    shares = patch_to_region(ids, PATCH, 20, 2, GRID)
    expected = [
        [[(ids[b, 0][box] == region).float().mean() for region in range(21)] for box in _boxes(SIZE)]
        for b in range(2)
    ]
    assert torch.equal(shares, torch.tensor(expected))
    for kind in (torch.int64, torch.float32):
        assert torch.equal(patch_to_region(ids.to(kind), PATCH, 20, 2, GRID), shares)


def test_without_regions_everything_is_background() -> None:
    shares = patch_to_region(None, PATCH, 20, 2, GRID)
    assert torch.equal(shares, patch_to_region(torch.zeros(2, 1, *SIZE), PATCH, 20, 2, GRID))
    assert (shares[..., 0] == 1).all()
    assert shares.sum() == 2 * 24


@pytest.mark.parametrize(
    ("ids", "complaint"),
    [(torch.zeros(2, 1, 8, 9, 9), r"= \(2, 1, 8, 9, 8\), got \(2, 1, 8, 9, 9\)"),
     (torch.zeros(1, 1, *SIZE), r"got \(1, 1, 8, 9, 8\)"),
     (torch.full((2, 1, *SIZE), 21), r"ids 0 \.\.\. 20, got 21 \.\.\. 21"),
     (torch.full((2, 1, *SIZE), -1), r"got -1 \.\.\. -1")],
)  # fmt: skip
def test_ids_that_do_not_fit_are_refused(ids: Tensor, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        patch_to_region(ids, PATCH, 20, 2, GRID)


def test_geometry_is_the_mean_and_spread_of_patch_centers() -> None:
    shares = patch_to_region(_random_ids(), PATCH, 20, 2, GRID)
    places = region_geometry(shares, GRID)
    assert places.shape == (2, 20, 8)
    ends = [np.array([(box[axis].start, box[axis].stop) for box in _boxes(SIZE)]) for axis in range(3)]
    centers = np.stack(
        [2 * end.mean(axis=1) / size - 1 for end, size in zip(ends, SIZE, strict=True)], axis=1
    )
    for b, region in np.ndindex(2, 20):
        weight = shares[b, :, region + 1].numpy()
        mean = np.average(centers, axis=0, weights=weight)
        spread = np.sqrt(np.average((centers - mean) ** 2, axis=0, weights=weight))
        expected = [weight.mean(), *mean, *spread, 1.0]
        np.testing.assert_allclose(places[b, region], expected, atol=1e-5)


def test_a_mirrored_patient_has_mirrored_geometry_and_an_absent_region_none() -> None:
    ids = _random_ids()
    ids[ids == 7] = 0
    place, mirrored = (
        region_geometry(patch_to_region(x, PATCH, 20, 2, GRID), GRID) for x in (ids, ids.flip(-1))
    )
    sign = torch.tensor([1.0, 1, 1, -1, 1, 1, 1, 1])
    torch.testing.assert_close(mirrored, place * sign, atol=1e-5, rtol=0)
    assert (place[:, 6] == 0).all()
