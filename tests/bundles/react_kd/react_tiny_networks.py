"""The smallest students and batches that show what the networks do, for their tests."""

from __future__ import annotations

from typing import Any

import torch
from react_kd.networks import Student
from torch import Tensor

SWIN = {"feature_size": 12, "level": 1, "window_size": (4, 4, 4)}
SEGRES = {"init_filters": 4, "blocks_down": (1, 1)}
SIZE = (16, 12, 8)
BOTH, CT, PET = [True, True], [True, False], [False, True]


def make_student(encoder: str = "segresnet", **options: Any) -> Student:
    return Student(3, 8, encoder, SEGRES if encoder == "segresnet" else SWIN, **options)


def make_batch(size: tuple[int, int, int] = SIZE) -> dict[str, Tensor]:
    """Two complete graded cases: random images, a liver in two parts and a lesion."""
    regions = torch.zeros(2, 1, *size, dtype=torch.uint8)
    x, y = size[0] // 2, size[1] // 2
    regions[:, :, :x], regions[:, :, x:], regions[:, :, :2, :y] = 1, 2, 5
    return {
        "image": torch.randn(2, 1, *size),
        "pet": torch.randn(2, 2, *size),
        "pet_available": torch.ones(2, 2, dtype=torch.bool),
        "label": torch.tensor([0, 2]),
        "regions": regions,
    }
