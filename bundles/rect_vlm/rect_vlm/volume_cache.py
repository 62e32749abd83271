"""Prepared volumes on disk, kept between runs for as long as files and settings stay the same."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from medbundles.atomic import replacing
from medbundles.samples import cache_dir
from monai.data import PersistentDataset
from monai.transforms import Compose
from monai.utils import convert_to_tensor

from rect_vlm.fingerprint import transform_key, volume_key

logger = logging.getLogger(__name__)


def default_folder() -> Path:
    """Folder of prepared volumes in the cache of the user."""
    return cache_dir() / "rect_vlm" / "volumes"


class VolumeCache(PersistentDataset):
    """MONAI's PersistentDataset with keys that follow the content, and files that are whole or not there.

    MONAI writes to the system's temporary folder and moves the file, which is a copy when that is on another
    disk. A damaged file is made again.

    Args:
        data: volumes, as `LoadCased` takes them.
        transform: deterministic steps.
        folder: where the files are; None takes `default_folder`.
    """

    def __init__(
        self, data: Sequence[Mapping[str, Any]], transform: Compose, folder: str | Path | None = None
    ) -> None:
        place = default_folder() if folder is None else Path(folder).expanduser()
        super().__init__(data, transform, place, hash_func=volume_key, hash_transform=transform_key)

    def file_of(self, index: int) -> Path:
        """Where a prepared volume is or will be kept."""
        return self._file(self.data[index])

    def _file(self, volume: Mapping[str, Any]) -> Path:
        return Path(str(self.cache_dir)) / f"{self.hash_func(volume).decode()}{self.transform_hash}.pt"

    def _cachecheck(self, item_transformed: Mapping[str, Any]) -> dict[str, Any]:
        file = self._file(item_transformed)
        if file.is_file():
            try:
                return torch.load(file, weights_only=True)
            except (UnpicklingError, RuntimeError, EOFError) as error:
                logger.warning("%s is damaged and will be made again: %s", file, error)
        prepared = convert_to_tensor(self._pre_transform(dict(item_transformed)), track_meta=False)
        with replacing(file) as temporary:
            torch.save(prepared, temporary)
        return prepared
