"""LiTS17 (and the same scans as Decathlon Task03_Liver) to a datalist of ungraded cases.

Layouts: `volume-N.nii` with `segmentation-N.nii` anywhere below the source, or `imagesTr/liver_N.nii.gz` with
`labelsTr/liver_N.nii.gz`. Segmentation values are 0 background, 1 liver, 2 tumour (Bilic et al., Med Image
Anal 84:102680, 2023). There are no grades, so no case gets a label. The CT files are used where they are.
"""

from __future__ import annotations

import logging
import re
from functools import partial
from pathlib import Path

import numpy as np

from react_kd.convert.common import (
    Case,
    check_choice,
    check_same_grid,
    convert_each,
    load_nifti,
    save_volume,
    source_folder,
    stop_if_failed,
    write_datalist,
)

logger = logging.getLogger(__name__)
_LITS = re.compile(r"(volume|segmentation)-(\d+)\.nii(\.gz)?")
_DECATHLON = re.compile(r"liver_(\d+)\.nii(\.gz)?")


def convert_lits17(
    source: str, output: str, without_lesion: str = "drop", split: str = "training", progress: bool = True
) -> str:
    """LiTS17 or Task03_Liver to masks and `output`/datalist.json; return the datalist's path.

    Finished cases are skipped when run again. `without_lesion` is "drop" or "keep": some scans have none.
    Raises ValueError naming each file that could not be used, after all others have been converted.
    """
    check_choice("without_lesion", without_lesion, ("drop", "keep"))
    check_choice("split", split, ("training", "validation", "test"))
    folder = Path(output).expanduser().absolute()
    pairs = find_pairs(source_folder(source))
    convert = partial(_convert, folder=folder, keep=without_lesion == "keep")
    cases, failures = convert_each(pairs, convert, "LiTS17", progress)
    datalist = write_datalist(folder, "LiTS17 (no grades)", {split: cases})
    dropped = len(pairs) - len(cases) - len(failures)
    logger.info("LiTS17: %d cases in %s, %d without a lesion dropped", len(cases), datalist, dropped)
    stop_if_failed(failures, datalist, len(cases))
    return str(datalist)


def find_pairs(source: Path) -> list[tuple[int, Path, Path]]:
    """Find (number, CT, segmentation) in either layout, by number.

    Raises FileNotFoundError when there is none, ValueError when a number occurs twice; warns about a CT
    without a segmentation.
    """
    found: dict[str, dict[int, Path]] = {"image": {}, "segmentation": {}}
    for path in sorted(source.rglob("*.nii*")):
        kind, number = _classify(path)
        if kind is None:
            continue
        if number in found[kind]:
            raise ValueError(f"{kind} {number} must be there once, found {found[kind][number]} and {path}")
        found[kind][number] = path
    if not found["image"]:
        raise FileNotFoundError(
            f"{source} holds neither volume-N.nii (LiTS17) nor imagesTr/liver_N.nii.gz (Task03_Liver)"
        )
    alone = sorted(set(found["image"]) - set(found["segmentation"]))
    if alone:
        logger.warning("no segmentation for volumes %s: left out", alone)
    numbers = sorted(set(found["image"]) & set(found["segmentation"]))
    return [(n, found["image"][n], found["segmentation"][n]) for n in numbers]


def _classify(path: Path) -> tuple[str | None, int]:
    if match := _LITS.fullmatch(path.name):
        return ("image" if match[1] == "volume" else "segmentation"), int(match[2])
    if match := _DECATHLON.fullmatch(path.name):
        kinds = {"imagesTr": "image", "labelsTr": "segmentation"}
        return kinds.get(path.parent.name), int(match[1])
    return None, -1


def _convert(pair: tuple[int, Path, Path], folder: Path, keep: bool) -> Case | None:
    number, image, segmentation = pair
    scan = f"lits_{number:03d}"
    masks = {key: folder / scan / f"{key}.nii.gz" for key in ("liver", "mass")}
    if not all(path.is_file() for path in masks.values()):
        check_same_grid(image, segmentation)
        opened = load_nifti(segmentation)
        labels = np.asarray(opened.dataobj)
        values = np.unique(labels)
        if not np.isin(values, (0, 1, 2)).all():
            raise ValueError(f"{segmentation} must hold the values 0, 1 and 2, got {values.tolist()}")
        save_volume((labels > 0).astype(np.uint8), opened.affine, masks["liver"])
        save_volume((labels == 2).astype(np.uint8), opened.affine, masks["mass"])
    if not keep and not np.asarray(load_nifti(masks["mass"]).dataobj).any():
        return None
    return {"patient_id": scan, "scan_id": scan, "image": image, **masks}
