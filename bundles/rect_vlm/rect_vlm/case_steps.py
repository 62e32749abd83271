"""The steps of preprocessing that MONAI does not have: reading a case, and packing it for a cache."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from medbundles.errors import without_wrappers
from monai.data import MetaTensor
from monai.transforms import Compose, Transform
from monai.utils import convert_to_dst_type, convert_to_tensor
from scipy import ndimage
from torch import Tensor

from rect_vlm.findings import LESIONS
from rect_vlm.geometry import Geometry
from rect_vlm.grids import VolumeGrid
from rect_vlm.hu import HU_RANGE
from rect_vlm.lesion_masks import lesion_bits, read_label_map, unpack_lesions
from rect_vlm.records import describe
from rect_vlm.regions import from_totalsegmentator
from rect_vlm.volume_files import read_grid
from rect_vlm.volume_input import grid_of, read_volume

KEYS = ("image", "regions", "lesions")
ALIASING = 2.0  # an axis that shrinks by less is resampled as CT-CLIP does, without smoothing

Data = Mapping[Hashable, Any]
Sample = dict[Hashable, Any]

_READING = ("intensity", "hu_source", "slope", "intercept", "spacing")
_DEFAULTS: dict[Hashable, Any] = {
    **{"intensity": "hu", "hu_source": "nifti", "slope": None, "intercept": None, "spacing": None},
    **{"regions": None, "lesion_masks": {}, "mask_values": {}},
}


class CaseCompose(Compose):
    """Compose whose errors are those of its steps: MONAI hides them in RuntimeErrors."""

    def __call__(self, data: Any, *args: Any, **options: Any) -> Any:  # type: ignore[override]
        """Apply the steps; raises what a step raised."""
        try:
            return super().__call__(data, *args, **options)
        except RuntimeError as error:
            cause = without_wrappers(error)
            if cause is error:
                raise
        raise cause


def open_volume(record: Mapping[Any, Any]) -> tuple[MetaTensor, VolumeGrid]:
    """The volume of a record in HU (1, X, Y, Z), and the grid of its masks; errors as in read_volume.

    Masks follow the header of the file, whatever the metadata table says about the size of voxels.
    """
    image = read_volume(record["image"], **{key: record[key] for key in _READING})
    return image, grid_of(image) if record["spacing"] is None else read_grid(record["image"])


class LoadCased(Transform):
    """Reads the volume of a record as HU, its regions and its lesions, all on the grid of the volume."""

    def __call__(self, data: Data) -> Sample:
        """Return the sample; errors as in read_volume and read_label_map, naming record and key."""
        record: dict[Hashable, Any] = {**_DEFAULTS, **data}
        with _told_of(record, "image"):
            image, stored = open_volume(record)
        grid = grid_of(image)
        sample: Sample = {
            "image": image,
            "mask_known": torch.tensor([lesion in record["lesion_masks"] for lesion in LESIONS]),
            "source_affine": torch.from_numpy(grid.affine.copy()),
            "source_shape": torch.tensor(grid.shape),
        }
        if record["regions"] is not None:
            with _told_of(record, "regions"):
                ids = from_totalsegmentator(read_label_map(record["regions"], stored))
            sample["regions"] = MetaTensor(torch.from_numpy(ids)[None], affine=image.affine)
        if record["lesion_masks"]:
            with _told_of(record, "lesion_masks"):
                bits = lesion_bits(record, stored)
            sample["lesions"] = MetaTensor(torch.from_numpy(bits)[None], affine=image.affine)
        return sample


class DensityFromAird(Transform):
    """Clips the image to the model's range and counts from air, 0..2000: what is padded by 0 is air."""

    def __call__(self, data: Data) -> Sample:
        """Return the sample with the image in HU + 1000."""
        return {**data, "image": data["image"].clamp(-HU_RANGE, HU_RANGE) + HU_RANGE}


class SmoothBeforeSpacingd(Transform):
    """Smooths the image where an axis shrinks at least twofold, or small bright things would come and go.

    Gaussian of (f - 1) / 2 voxels for a factor f, the width of MONAI's Resize(anti_aliasing=True).
    """

    def __init__(self, geometry: Geometry) -> None:
        self.spacing = geometry.spacing
        self.img_size = geometry.img_size

    def __call__(self, data: Data) -> Sample:
        """Return the sample with a smooth image."""
        image: MetaTensor = data["image"]
        if self.spacing is None:
            factors = [size / wanted for size, wanted in zip(image.shape[1:], self.img_size, strict=True)]
        else:
            factors = [wanted / float(mm) for mm, wanted in zip(image.pixdim, self.spacing, strict=True)]
        widths = [(factor - 1) / 2 if factor >= ALIASING else 0.0 for factor in factors]
        if not any(widths):
            return dict(data)
        smooth = ndimage.gaussian_filter(image.numpy(), [0.0, *widths], mode="nearest", truncate=3.0)
        return {**data, "image": convert_to_dst_type(smooth, image)[0]}


class PackCased(Transform):
    """Makes a sample small, for caches: the image int16, without history unless `keep_meta`."""

    def __init__(self, keep_meta: bool) -> None:
        self.keep_meta = keep_meta

    def __call__(self, data: Data) -> Sample:
        """Return the sample with the affine of the model grid as a tensor of its own."""
        sample = {key: value for key, value in data.items() if key not in KEYS}
        sample["affine"] = data["image"].affine.to(torch.float64).clone()
        for key, kind in zip(KEYS, (torch.int16, torch.uint8, torch.uint8), strict=True):
            if key in data:
                packed = data[key].round().to(kind)
                sample[key] = packed if self.keep_meta else packed.as_tensor()
        return sample


class FinishCased(Transform):
    """Unpacks a sample: image -1..1, regions and masks, zeros where the record had none."""

    def __init__(self, keep_meta: bool) -> None:
        self.keep_meta = keep_meta

    def __call__(self, data: Data) -> Sample:
        """Return the finished sample."""
        sample = {key: value for key, value in data.items() if key not in KEYS}
        image = data["image"].float().clamp(0, 2 * HU_RANGE) / HU_RANGE - 1
        regions, lesions = (data.get(key) for key in KEYS[1:])
        sample["regions_known"] = torch.tensor(regions is not None)
        empty = torch.zeros(tuple(image.shape), dtype=torch.uint8)
        sample["image"] = image if self.keep_meta else convert_to_tensor(image, track_meta=False)
        sample["regions"] = empty if regions is None else _plain(regions)
        sample["masks"] = unpack_lesions(empty if lesions is None else _plain(lesions))
        return sample


@contextmanager
def _told_of(record: Data, key: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{describe(record)}, key {key}: {error}") from error


def _plain(volume: Tensor) -> Tensor:
    tensor = volume.as_tensor() if isinstance(volume, MetaTensor) else volume
    return tensor.round().to(torch.uint8)
