"""From the image files of a record to what the network takes; nothing mirrors, for reports name sides.

Sizes and rotation follow PromptMRG: shorter side 256, crop 224, ±5 degrees.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.transforms import Compose, RandomizableTrait, Transform
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, interpolate

from kif_mrg.images import read_image

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def train_transform(size: int = 96, resize: int = 104, rotate: float = 5.0, views: int = 1) -> Compose:
    """Training: shorter side to `resize`, random crop, random rotation, ImageNet normalisation.

    Takes a record (key image_path) and adds "image", float32 (3, size, size), or (V, 3, size, size) for
    several views, each cropped and turned by itself. Everything before the crop is deterministic and may be
    cached; randomness comes from torch's generator.

    Args:
        size: pixels of the square result.
        resize: pixels of the shorter side before the crop.
        rotate: largest angle in degrees, either way.
        views: images of a record that are used; a record with fewer repeats its last.

    Raises:
        ValueError: resize is smaller than size, or views less than 1.
    """
    _check(size, resize, views)
    return Compose([LoadViews(resize, views), RandCropRotateViews(size, rotate), FinishViews()])


def eval_transform(size: int = 96, resize: int = 104, views: int = 1) -> Compose:
    """Evaluation and inference: as `train_transform`, with the centre crop and without the rotation."""
    _check(size, resize, views)
    return Compose([LoadViews(resize, views), CentreCropViews(size), FinishViews()])


Sample = dict[Hashable, Any]


class LoadViews(Transform):
    """Reads the views of a record into the list "views" of (3, H, W) in 0..1, shorter side `resize`."""

    def __init__(self, resize: int, views: int = 1) -> None:
        self.resize = resize
        self.views = views

    def __call__(self, data: Mapping[Hashable, Any]) -> Sample:
        """Return a copy of the record with its views; errors as in `read_image`."""
        paths = data["image_path"]
        chosen = [paths[min(view, len(paths) - 1)] for view in range(self.views)]
        return {**data, "views": [self._load(path) for path in chosen]}

    def _load(self, path: str) -> Tensor:
        # Twice the size leaves the resizing enough pixels to average.
        return resize_shorter_side(read_image(path, at_least=2 * self.resize), self.resize)


class RandCropRotateViews(RandomizableTrait, Transform):
    """Takes a random square of every view, turned about its middle by up to `rotate` degrees.

    Crop and rotation are one resampling, so what turns in at the corners is the picture around the square,
    and black only beyond its edge. Ten times faster here than the two transforms of MONAI, which track meta
    data.
    """

    def __init__(self, size: int, rotate: float) -> None:
        self.size = size
        self.rotate = math.radians(rotate)

    def __call__(self, data: Mapping[Hashable, Any]) -> Sample:
        """Return the sample with views (3, size, size)."""
        return {**data, "views": [self._crop(view) for view in data["views"]]}

    def _crop(self, view: Tensor) -> Tensor:
        height, width = view.shape[-2:]
        top = int(torch.randint(height - self.size + 1, ()))
        left = int(torch.randint(width - self.size + 1, ()))
        angle = self.rotate * (2 * float(torch.rand(())) - 1)
        if angle == 0:
            return view[:, top : top + self.size, left : left + self.size]
        return rotated_crop(view, (top + self.size / 2, left + self.size / 2), self.size, angle)


class CentreCropViews(Transform):
    """Takes the square in the middle of every view."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, data: Mapping[Hashable, Any]) -> Sample:
        """Return the sample with views (3, size, size)."""
        return {**data, "views": [self._crop(view) for view in data["views"]]}

    def _crop(self, view: Tensor) -> Tensor:
        top, left = ((side - self.size) // 2 for side in view.shape[-2:])
        return view[:, top : top + self.size, left : left + self.size]


class FinishViews(Transform):
    """Normalises the views by ImageNet's mean and deviation and joins them to "image"."""

    def __call__(self, data: Mapping[Hashable, Any]) -> Sample:
        """Return the sample with "image" in place of the views, (V, 3, H, W), or (3, H, W) for one."""
        views = torch.stack(data["views"])
        mean, deviation = (views.new_tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
        image = (views - mean) / deviation
        kept = {key: value for key, value in data.items() if key != "views"}
        return {**kept, "image": image[0] if len(views) == 1 else image}


def resize_shorter_side(image: Tensor, size: int) -> Tensor:
    """Resize (C, H, W) so that its shorter side has `size` pixels, with anti-aliasing, aspect kept."""
    height, width = image.shape[-2:]
    shorter = min(height, width)
    if shorter == size:
        return image
    target = (max(size, round(height * size / shorter)), max(size, round(width * size / shorter)))
    return interpolate(image[None], target, mode="bilinear", antialias=True)[0]


def rotated_crop(image: Tensor, centre: tuple[float, float], size: int, angle: float) -> Tensor:
    """Cut the square (C, size, size) about `centre` out of (C, H, W), turned by `angle` radians.

    `centre` is (row, column) in pixels from the upper left corner. The picture turns clockwise for a positive
    angle; what lies beyond its edge is 0.
    """
    height, width = image.shape[-2:]
    row, column = centre
    cos, sin = math.cos(angle), math.sin(angle)
    # Rows: x then y of the source, both -1..1 over the image, for x, y -1..1 over the square.
    theta = image.new_tensor(
        [
            [cos * size / width, sin * size / width, 2 * column / width - 1],
            [-sin * size / height, cos * size / height, 2 * row / height - 1],
        ]
    )
    grid = affine_grid(theta[None], [1, 3, size, size], align_corners=False)
    return grid_sample(image[None], grid, mode="bilinear", padding_mode="zeros", align_corners=False)[0]


def _check(size: int, resize: int, views: int) -> None:
    if not 1 <= size <= resize:
        raise ValueError(f"resize must be at least size, got {size=} {resize=}")
    if views < 1:
        raise ValueError(f"views must be at least 1, got {views=}")
