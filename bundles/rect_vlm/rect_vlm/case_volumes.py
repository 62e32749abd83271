"""The CTs to read, prepared on demand, with what a picture of them needs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from medbundles.errors import one_line
from monai.data import Dataset
from monai.data.utils import affine_to_spacing
from monai.transforms import Compose
from monai.utils import convert_to_tensor

from rect_vlm.hu import HU_RANGE
from rect_vlm.studies import Study


class CaseVolumes(Dataset):
    """Samples of `eval_transform` with `index` and `seconds`; one that cannot be had comes as its `error`.

    Args:
        data: cases of `cases_from`.
        transform: `eval_transform`.
        pictures: keep the CT as it came as `hu` (X, Y, Z) int16, clipped to +-1000.
    """

    def __init__(self, data: Sequence[Mapping[str, Any]], transform: Compose, pictures: bool = True) -> None:
        super().__init__(data, transform)
        self.pictures = pictures

    def _transform(self, index: int) -> dict[str, Any]:
        start = time.perf_counter()
        steps: Any = self.transform
        try:
            loaded = steps(dict(self.data[index]), end=1)  # the first step reads the files
            sample = steps(loaded, start=1)
        except Exception as error:  # noqa: BLE001 - files can be broken in any way; it is reported
            return {"index": index, "error": one_line(error)}
        if self.pictures:
            own = loaded["image"].as_tensor()[0]
            sample["hu"] = own.clamp(-HU_RANGE, HU_RANGE).to(torch.int16)
        return {**sample, "index": index, "seconds": time.perf_counter() - start}


def one_sample(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Collate function of batches of one: CTs of different size cannot be stacked."""
    return samples[0]


def study_of(sample: Mapping[str, Any]) -> Study:
    """A sample as the model takes it."""
    d, h, w = affine_to_spacing(sample["affine"]).tolist()
    return Study(
        convert_to_tensor(sample["image"], track_meta=False).unsqueeze(0),
        sample["regions"].unsqueeze(0) if bool(sample["regions_known"]) else None,
        (d, h, w),
        sample["affine"],
        sample["source_affine"],
        sample["source_shape"],
    )
