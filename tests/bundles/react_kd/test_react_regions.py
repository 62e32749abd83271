"""Region labels, soft occupancy on feature grids, the region table and the transform."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from medbundles.region_graph import region_nodes
from monai.data import MetaTensor
from monai.transforms import Flipd
from react_kd.regions import RegionLabelsd, occupancy, region_count, region_labels, region_table
from torch import Tensor

SHAPE = (24, 20, 12)


def liver() -> np.ndarray:
    mask = np.zeros(SHAPE, dtype=np.uint8)
    mask[2:22, 2:18, 1:11] = 1
    return mask


def mass(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    mask = np.zeros(SHAPE, dtype=np.uint8)
    for x, y, z, edge in boxes:
        mask[x : x + edge, y : y + edge, z : z + edge] = 1
    return mask


def random_labels(batch: int = 2, regions: int = 12) -> Tensor:
    return torch.randint(0, regions + 1, (batch, 1, *SHAPE))


def test_separate_tumours_become_nodes_ordered_by_volume() -> None:
    labels = region_labels(liver(), mass((4, 4, 2, 2), (10, 8, 4, 4), (18, 12, 6, 3)))
    volumes = np.bincount(labels.ravel(), minlength=8)
    assert volumes[5:8].tolist() == [64, 27, 8]
    assert labels[11, 9, 5] == 5
    assert labels.max() == 7


def test_voxels_that_touch_at_a_corner_are_one_tumour() -> None:
    lesion = mass((5, 5, 5, 2), (7, 7, 7, 2))
    assert np.unique(region_labels(liver(), lesion)[lesion > 0]).tolist() == [5]


def test_components_below_the_minimum_are_neither_tumour_nor_parenchyma() -> None:
    lesion = mass((4, 4, 4, 1), (10, 8, 4, 2))
    labels = region_labels(liver(), lesion, min_voxels=8)
    assert labels[4, 4, 4] == 0
    assert labels[10, 8, 4] == 5
    assert region_labels(liver(), lesion, min_voxels=1)[4, 4, 4] == 6


def test_at_most_eight_tumours_and_the_largest_are_kept() -> None:
    boxes = [(3 + 3 * i, 4 + 6 * j, 3, 2) for i in range(5) for j in range(2)]
    lesion = mass(*boxes)
    lesion[3, 4, 5] = 1  # the first one is a voxel larger
    labels = region_labels(liver(), lesion)
    assert labels.max() == region_count() == 12
    assert labels[3, 4, 3] == 5
    assert (labels[lesion > 0] == 0).sum() == 2 * 8


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_parenchyma_parts_are_equal_in_a_symmetric_liver_and_cover_it(parts: int) -> None:
    labels = region_labels(liver(), np.zeros(SHAPE), liver_parts=parts)
    assert np.bincount(labels.ravel())[1:].tolist() == [20 * 16 * 10 // parts] * parts
    assert ((labels > 0) == (liver() > 0)).all()


def test_quadrants_lie_in_the_plane_of_the_first_two_axes() -> None:
    labels = region_labels(liver(), np.zeros(SHAPE))
    assert [int(labels[x, y, 5]) for x in (4, 20) for y in (4, 16)] == [1, 2, 3, 4]
    assert (labels[:, :, 2] == labels[:, :, 9]).all()


def test_empty_masks_leave_the_other_regions() -> None:
    nothing = np.zeros(SHAPE)
    assert region_labels(nothing, nothing).max() == 0
    assert np.unique(region_labels(nothing, mass((4, 4, 4, 3)))).tolist() == [0, 5]


def test_bad_masks_and_parts_are_named() -> None:
    with pytest.raises(ValueError, match="on one grid"):
        region_labels(liver(), np.zeros((4, 4, 4)))
    with pytest.raises(ValueError, match="liver_parts must be 1, 2 or 4"):
        region_labels(liver(), liver(), liver_parts=3)


@pytest.mark.parametrize("grid", [(6, 5, 3), (3, 2, 1), (24, 20, 12), (5, 7, 5), (1, 1, 1)])
def test_occupancy_is_the_adaptive_pool_of_the_one_hot(grid: tuple[int, int, int]) -> None:
    labels = random_labels()
    one_hot = F.one_hot(labels[:, 0], 13).movedim(-1, 1)[:, 1:].float()
    torch.testing.assert_close(occupancy(labels, grid, 12), F.adaptive_avg_pool3d(one_hot, grid))


@pytest.mark.parametrize("grid", [(6, 5, 3), (1, 1, 1), (5, 3, 7)])
def test_a_lesion_of_one_voxel_keeps_weight_in_its_own_cell(grid: tuple[int, int, int]) -> None:
    labels = torch.zeros(2, 1, *SHAPE, dtype=torch.uint8)
    labels[1, 0, 13, 3, 8] = 7
    share = occupancy(labels, grid, 12)
    assert share[1, 6].max() > 0
    assert share.count_nonzero() == share[1, 6].count_nonzero()
    cell = tuple(position * g // size for position, g, size in zip((13, 3, 8), grid, SHAPE, strict=True))
    assert share[1, 6][cell] > 0


def test_a_constant_per_region_is_returned_by_its_node() -> None:
    labels = torch.zeros(2, 1, *SHAPE, dtype=torch.long)
    labels[:, :, :12] = 1
    labels[:, :, 12:, :8] = 2
    labels[:, :, 12:, 8:, :4] = 3
    values = torch.tensor([0.0, 5.0, -2.0, 7.0])
    features = F.avg_pool3d(values[labels], 4)
    nodes, present = region_nodes(features, occupancy(labels, (6, 5, 3), 3))
    assert present.all()
    torch.testing.assert_close(nodes[..., 0], values[1:].expand(2, 3))


def test_labels_out_of_range_or_shape_are_named() -> None:
    with pytest.raises(ValueError, match=r"0 [.]{3} 3"):
        occupancy(random_labels(), (6, 5, 3), 3)
    with pytest.raises(ValueError, match="got -1"):
        occupancy(random_labels() - 1, (6, 5, 3), 12)
    with pytest.raises(ValueError, match=r"\(B, 1, X, Y, Z\)"):
        occupancy(random_labels()[0], (6, 5, 3), 12)


def test_table_gives_world_centroids_and_volumes() -> None:
    affine = np.diag([2.0, 2.0, 5.0, 1.0])
    affine[:3, 3] = [-10, 0, 30]
    table = region_table(region_labels(liver(), mass((10, 8, 4, 3), (16, 4, 4, 2))), affine)
    assert [(row["region"], row["type"], row["component"]) for row in table] == [
        *((i, "liver", i) for i in range(1, 5)),
        (5, "tumour", 1),
        (6, "tumour", 2),
    ]
    assert table[4]["centroid_mm"] == pytest.approx([12.0, 18.0, 55.0])
    assert table[4]["volume_mm3"] == pytest.approx(27 * 20)


def test_transform_adds_a_map_that_flips_with_its_masks() -> None:
    affine = np.diag([2.0, 2.0, 5.0, 1.0])
    masks = {"liver": liver(), "mass": mass((4, 4, 2, 3))}
    sample = {key: MetaTensor(torch.from_numpy(mask[None]), affine=affine) for key, mask in masks.items()}
    out = RegionLabelsd()(sample)
    assert out["regions"].shape == (1, *SHAPE)
    assert out["regions"].dtype == torch.uint8
    assert isinstance(out["regions"], MetaTensor)
    np.testing.assert_array_equal(out["regions"].affine, affine)
    flipped = Flipd(keys=["mass", "regions"], spatial_axis=0)(out)
    assert ((flipped["regions"] == 5) == (flipped["mass"] == 1)).all()
    assert "regions" not in sample


def test_transform_names_the_missing_mask() -> None:
    with pytest.raises(KeyError, match="mass"):
        RegionLabelsd()({"liver": torch.from_numpy(liver()[None])})
