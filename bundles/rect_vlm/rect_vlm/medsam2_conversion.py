"""Volumes and lesion masks in CT-RATE's layout as npz files for MedSAM2."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from medbundles.processes import run_in_processes
from numpy.typing import NDArray

from rect_vlm.case_steps import open_volume
from rect_vlm.ctrate import read_ctrate
from rect_vlm.findings import LESIONS
from rect_vlm.grids import VolumeGrid
from rect_vlm.hu import HU_RANGE
from rect_vlm.lesion_masks import FOLDER, lesion_bits
from rect_vlm.npz import write_npz
from rect_vlm.records import Record
from rect_vlm.volume_input import grid_of


def prepare_ctrate_for_medsam2(
    volume_dir: str | Path,
    output_dir: str | Path,
    mask_dir: str | Path | None = None,
    split: str = "train",
    window_low: float = -HU_RANGE,
    window_high: float = HU_RANGE,
    workers: int = 1,
) -> Path:
    """Write `output_dir`/{split}/{volume}.npz of every volume that has lesion masks; those there stay.

    `gts` holds 1..5 in the order of LESIONS; where lesions overlap, the one later in the order.

    Args:
        volume_dir: folder in CT-RATE's layout.
        output_dir: parent of the folder of the split.
        mask_dir: `{lesion}/{volume}.nii.gz`; by default `lesion_masks` and `ts_seg` of `volume_dir`.
        split: "train" or "valid".
        window_low, window_high: HU that become 0 and 255.
        workers: processes; 0 is one per core.

    Raises:
        ValueError: no volume with a mask, an empty window, or a volume or mask that cannot be read.
    """
    from tqdm import tqdm

    if not window_low < window_high:
        raise ValueError(f"window_low must be below window_high, got {window_low} and {window_high}")
    target = Path(output_dir).expanduser() / split
    records = read_ctrate(volume_dir, split, reconstructions="all")
    if mask_dir is not None:
        records = [_with_masks(record, Path(mask_dir).expanduser()) for record in records]
    outlined = [record for record in records if record["lesion_masks"]]
    if not outlined:
        raise ValueError(f"{mask_dir or volume_dir}: no volume of {split} has a mask ({FOLDER})")
    missing = [record for record in outlined if not (target / f"{record['id']}.npz").is_file()]
    convert = partial(_convert, target=target, window=(window_low, window_high))
    if workers == 1:
        for record in tqdm(missing, desc=f"MedSAM2 {split}", ncols=110):
            convert(record)
    else:
        run_in_processes(convert, missing, workers, f"MedSAM2 {split}")
    return target


def _with_masks(record: Record, masks: Path) -> Record:
    paths = {lesion: masks / lesion / f"{record['id']}.nii.gz" for lesion in LESIONS}
    found = {lesion: str(path) for lesion, path in paths.items() if path.is_file()}
    return {**record, "lesion_masks": found, "mask_values": {}}


def _convert(record: Record, target: Path, window: tuple[float, float]) -> None:
    volume, mask_grid = open_volume(record)
    ids = _ids(record, mask_grid)
    write_npz(target / f"{record['id']}.npz", volume[0].numpy(), grid_of(volume), ids, window)


def _ids(record: Record, grid: VolumeGrid) -> NDArray[np.uint8]:
    bits = lesion_bits(record, grid)
    ids = np.zeros_like(bits)
    for number, _ in enumerate(LESIONS, 1):
        ids[(bits >> (number - 1)) & 1 > 0] = number
    return ids
