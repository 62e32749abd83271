"""From image files to the network's input: sizes, orientation, normalisation, and no mirror anywhere."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from kif_case_files import save_picture
from kif_mrg.images import read_image
from kif_mrg.transforms import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    eval_transform,
    resize_shorter_side,
    rotated_crop,
    train_transform,
)
from monai.data import CacheDataset
from skimage.transform import rotate

MEAN, STD = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
NOISE = np.random.default_rng(0).integers(0, 255, (50, 60), dtype=np.uint8)


def smooth(height: int, width: int) -> torch.Tensor:
    """(1, H, W), a different wave along each axis."""
    y, x = torch.meshgrid(torch.arange(height) / 9, torch.arange(width) / 7, indexing="ij")
    return (0.5 + 0.2 * torch.sin(y) + 0.2 * torch.cos(x + 1) + 0.02 * x)[None]


@pytest.mark.parametrize(("height", "width"), [(300, 200), (200, 300), (64, 64), (20, 33)])
def test_image_has_the_size_whatever_the_file_has(tmp_path: Path, height: int, width: int) -> None:
    array = (255 * smooth(height, width)[0].clamp(0, 1)).to(torch.uint8).numpy()
    record = {"image_path": [save_picture(tmp_path / "x.png", array)], "id": "a"}
    for transform in (train_transform(48, 56), eval_transform(48, 56)):
        sample = transform(record)
        assert sample["image"].shape == (3, 48, 48)
        assert sample["image"].dtype == torch.float32
        assert type(sample["image"]) is torch.Tensor
        assert sorted(sample) == ["id", "image", "image_path"]


def test_evaluation_is_the_middle_normalised_by_imagenet(tmp_path: Path) -> None:
    path = save_picture(tmp_path / "x.png", NOISE)
    image = eval_transform(40, 50)({"image_path": [path]})["image"]
    torch.testing.assert_close(image * STD + MEAN, read_image(path)[:, 5:45, 10:50])


def test_resizing_keeps_the_aspect_and_averages() -> None:
    image = smooth(80, 120)
    small = resize_shorter_side(image, 20)
    assert small.shape == (1, 20, 30)
    means = torch.nn.functional.avg_pool2d(image, 4)
    assert (small - means).abs().max() < 0.02
    assert resize_shorter_side(image.mT, 20).shape == (1, 30, 20)
    assert resize_shorter_side(image, 80) is image


def test_left_stays_left_and_top_stays_top_in_every_draw(tmp_path: Path) -> None:
    array = np.zeros((60, 60), np.uint8)
    array[:20, :20] = 255
    transform = train_transform(48, 60)
    for _ in range(30):
        image = transform({"image_path": [save_picture(tmp_path / "x.png", array)]})["image"][0]
        quarters = [image[:24, :24], image[:24, 24:], image[24:, :24], image[24:, 24:]]
        assert int(torch.stack([quarter.mean() for quarter in quarters]).argmax()) == 0


def test_nothing_in_the_chains_flips() -> None:
    for transform in (train_transform(), eval_transform()):
        assert not [step for step in transform.flatten().transforms if "flip" in type(step).__name__.lower()]


def test_crop_without_rotation_is_a_window_of_the_image(tmp_path: Path) -> None:
    path = save_picture(tmp_path / "x.png", NOISE)
    whole = (read_image(path) - MEAN) / STD
    windows = whole.unfold(1, 40, 1).unfold(2, 40, 1)  # 3, top, left, 40, 40
    transform = train_transform(40, 50, rotate=0)
    corners = set()
    for _ in range(20):
        image = transform({"image_path": [path]})["image"]
        distance = (windows - image[:, None, None]).abs().amax((0, 3, 4))
        assert distance.min() < 1e-6
        corners.add(int(distance.argmin()))
    assert len(corners) > 10


def test_rotation_turns_about_the_middle_as_scikit_image_does() -> None:
    image = smooth(61, 61)
    for degrees in (5.0, -17.0):
        turned = rotated_crop(image, (30.5, 30.5), 61, math.radians(degrees))[0].numpy()
        expected = rotate(image[0].numpy(), -degrees, order=1)
        np.testing.assert_allclose(turned[10:51, 10:51], expected[10:51, 10:51], atol=2e-3)


def test_rotated_corner_shows_the_picture_around_it_and_black_beyond() -> None:
    image = torch.ones(1, 60, 60)
    inside = rotated_crop(image, (30, 30), 40, 0.1)
    torch.testing.assert_close(inside, torch.ones(1, 40, 40))
    assert rotated_crop(image, (30, 30), 60, 0.1)[0, 0, 0] == 0


def test_rotation_stays_within_the_angle() -> None:
    line = torch.zeros(1, 101, 101)
    line[:, 50] = 1
    step = train_transform(101, 101, rotate=5.0).transforms[1]
    slopes = []
    for _ in range(40):
        turned = step({"views": [line]})["views"][0][0]
        left, right = turned[:, 10].argmax(), turned[:, 90].argmax()
        slopes.append(math.degrees(math.atan2(float(right - left), 80)))
    assert max(map(abs, slopes)) < 5.8
    assert min(slopes) < -2 < 2 < max(slopes)


def test_two_views_are_stacked_in_order_and_a_single_one_is_repeated(tmp_path: Path) -> None:
    files = [save_picture(tmp_path / "0.png", NOISE), save_picture(tmp_path / "1.png", NOISE.T.copy())]
    transform = eval_transform(40, 50, views=2)
    both = transform({"image_path": files})["image"]
    assert both.shape == (2, 3, 40, 40)
    assert torch.equal(both[0], eval_transform(40, 50)({"image_path": files})["image"])
    assert torch.equal(both[1], eval_transform(40, 50)({"image_path": files[1:]})["image"])
    alone = transform({"image_path": files[:1]})["image"]
    assert torch.equal(alone[0], alone[1])
    random = train_transform(40, 50, views=2)({"image_path": files[:1]})["image"]
    assert not torch.equal(random[0], random[1])


def test_draws_come_from_torch_and_only_they_escape_the_cache(tmp_path: Path) -> None:
    transform = train_transform(40, 50)
    path = save_picture(tmp_path / "x.png", NOISE)
    cached = CacheDataset([{"image_path": [path]}], transform, progress=False)
    Path(path).unlink()
    first = cached[0]["image"]
    torch.manual_seed(3)
    second = cached[0]["image"]
    torch.manual_seed(3)
    assert torch.equal(cached[0]["image"], second)
    assert not torch.equal(first, second)


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"resize must be at least size, got size=96 resize=90"):
        train_transform(96, 90)
    with pytest.raises(ValueError, match=r"views must be at least 1, got views=0"):
        eval_transform(views=0)
