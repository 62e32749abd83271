"""ReXGroundingCT (arXiv 2507.22030): outlines of report findings in CT-RATE volumes, as lesion masks.

Its masks (F, X, Y, Z) carry no geometry of their own: they lie on the voxels of the corrected CT-RATE
volume, whose affine is copied. Categories: 2b atelectasis and consolidation, 2c ground glass, 2d nodules and
masses, 2e pleural effusion and thickening.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from medbundles.atomic import replacing
from medbundles.problems import Problems
from numpy.typing import NDArray

from rect_vlm.ctrate import parse_volume, volume_place
from rect_vlm.ctrate_tables import volume_id
from rect_vlm.lesion_masks import FOLDER
from rect_vlm.volume_files import read_grid, read_voxels

logger = logging.getLogger(__name__)

# Lesion and the words of which its text must hold one, by category; pericardial effusion is not outlined.
LESION_OF_CATEGORY: dict[str, tuple[str, tuple[str, ...]]] = {
    "2b": ("consolidation", ("consolidat",)),
    "2c": ("ground_glass_opacity", ("",)),
    "2d": ("lung_nodule", ("nodul",)),
    "2e": ("pleural_effusion", ("effusion",)),
}
OUTLINED = tuple(lesion for lesion, _ in LESION_OF_CATEGORY.values())


def lesion_of(category: str, text: str) -> str | None:
    """The lesion that a finding of a category is, or None: an atelectasis is no consolidation."""
    lesion, words = LESION_OF_CATEGORY.get(category, ("", ()))
    return lesion if any(word in text.lower() for word in words) else None


def lesion_channels(entry: Mapping[str, Any]) -> dict[str, list[int]]:
    """Channels of the mask of a `dataset.json` entry by lesion, empty lists for lesions it has none of."""
    channels: dict[str, list[int]] = {lesion: [] for lesion in OUTLINED}
    for number, text in entry["findings"].items():
        lesion = lesion_of(str(entry["categories"].get(number, "")), str(text))
        if lesion is not None:
            channels[lesion].append(int(number))
    return channels


def convert_rexgrounding(
    annotations: str | Path,
    mask_dir: str | Path,
    dataset_dir: str | Path,
    output_dir: str | Path | None = None,
    write_empty: bool = True,
    progress: bool = True,
) -> Path:
    """Write `lesion_masks/{lesion}/{volume}.nii.gz` from ReXGroundingCT; masks that are there stay.

    Args:
        annotations: its `dataset.json`.
        mask_dir: folder of its masks, named like the volumes.
        dataset_dir: CT-RATE, with the volumes that are annotated in `train_fixed` and `valid_fixed`.
        output_dir: parent of `lesion_masks`; by default `dataset_dir`.
        write_empty: also a mask without a voxel for each of the four lesions that a report does not name,
            which says that it was looked for.
        progress: show a progress bar.

    Raises:
        ValueError: after all volumes, with all that could not be converted; the others are written.
    """
    from tqdm import tqdm

    masks, root = Path(mask_dir).expanduser(), Path(dataset_dir).expanduser()
    target = Path(output_dir).expanduser() if output_dir is not None else root
    problems, written = Problems(), 0
    for entry in tqdm(
        list(_entries(Path(annotations).expanduser())), desc="ReXGroundingCT", disable=not progress
    ):
        try:
            written += _convert(entry, masks, root, target / FOLDER, write_empty)
        except (ValueError, OSError, KeyError) as error:
            fault = f"key {error} is missing" if isinstance(error, KeyError) else str(error)
            problems.add("entries", f"{entry.get('name', 'entry without name')}: {fault}")
    logger.info("%d masks written to %s", written, target / FOLDER)
    problems.raise_if_any(str(annotations))
    return target / FOLDER


def _entries(path: Path) -> Iterator[Mapping[str, Any]]:
    content = json.loads(path.read_text(encoding="utf-8"))
    groups = list(content.values()) if isinstance(content, dict) else [content]
    for group in groups:
        if not isinstance(group, list) or not all(isinstance(entry, dict) for entry in group):
            raise ValueError(f"{path}: must hold lists of annotated volumes, got {type(group).__name__}")
        yield from group


def _convert(entry: Mapping[str, Any], masks: Path, root: Path, target: Path, write_empty: bool) -> int:
    volume = volume_id(str(entry["name"]))
    wanted = {
        lesion: channels
        for lesion, channels in lesion_channels(entry).items()
        if (channels or write_empty) and not (target / lesion / f"{volume}.nii.gz").is_file()
    }
    if not wanted:
        return 0
    split = parse_volume(volume)[0]
    grid = read_grid(root / f"{split}_fixed" / volume_place(volume))
    values, _ = read_voxels(masks / f"{volume}.nii.gz")
    if values.ndim == 3:  # a single finding, stored without its axis
        values = values[None]
    if values.shape[1:] != grid.shape:
        raise ValueError(f"its mask must be (findings, {grid.shape}), got {values.shape}")
    for lesion, channels in wanted.items():
        _save(target / lesion / f"{volume}.nii.gz", _union(values, channels), grid.affine)
    return len(wanted)


def _union(values: NDArray, channels: list[int]) -> NDArray[np.uint8]:
    beyond = [channel for channel in channels if channel >= len(values)]
    if beyond:
        raise ValueError(f"findings {beyond} have no channel in a mask of {len(values)}")
    return (values[channels] != 0).any(axis=0).astype(np.uint8)


def _save(path: Path, mask: NDArray[np.uint8], affine: NDArray[np.float64]) -> None:
    with replacing(path) as temporary:
        nib.save(nib.Nifti1Image(mask, affine), temporary)
