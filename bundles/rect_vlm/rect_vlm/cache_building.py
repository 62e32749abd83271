"""Prepares the volumes of a cohort ahead of training, so that the first epoch is as fast as the others."""

from __future__ import annotations

from pathlib import Path

from rect_vlm.data import CtDataset
from rect_vlm.geometry import GEOMETRIES
from rect_vlm.transforms import train_transform
from rect_vlm.validation import READ_VOXELS, read_checked
from rect_vlm.volume_cache import default_folder


def build_cache(
    dataset_dir: str,
    geometry: str = "ctrate",
    split: str = "train",
    hu_source: str = "auto",
    cache_dir: str | None = None,
    read_voxels: int | None = READ_VOXELS,
    workers: int = 2,
) -> Path:
    """Fill the persistent cache that training with the same geometry reads; a stopped run goes on.

    Args:
        dataset_dir: folder in CT-RATE's layout.
        geometry: a name in GEOMETRIES.
        split: "train" or "valid".
        hu_source: see `read_ctrate`.
        cache_dir: where to; None is the folder that training takes as well.
        read_voxels: volumes whose voxels are checked first, see `check_records`.
        workers: threads.

    Raises:
        ValueError: an unknown geometry, or all that is wrong with the volumes.
    """
    if geometry not in GEOMETRIES:
        raise ValueError(f"geometry must be one of {', '.join(GEOMETRIES)}, got {geometry!r}")
    records = read_checked(dataset_dir, (split,), (), read_voxels, hu_source=hu_source)[split]
    dataset = CtDataset(records, train_transform(GEOMETRIES[geometry]), "persistent", cache_dir)
    dataset.fill_cache(workers, desc=f"preparing {split}")
    return Path(cache_dir) if cache_dir is not None else default_folder()
