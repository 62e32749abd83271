"""Volumes of MedSAM2 (npz): windowed 8-bit images whose HU are gone.

Keys: `imgs` (D,H,W) uint8, `gts` (D,H,W) uint8 ids, `spacing` (3,). The files of its authors store the
spacing in SimpleITK's order x, y, z, with `direction` and `origin` beside it.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from medbundles.atomic import replacing
from numpy.typing import NDArray

from rect_vlm.findings import LESIONS
from rect_vlm.grids import LPS_TO_RAS, VolumeGrid
from rect_vlm.records import Record

IMAGE_KEYS = ("imgs", "volume")
SPACING_ORDERS = ("auto", "xyz", "zyx")


@dataclass(frozen=True)
class NpzVolume:
    """image (X, Y, Z) uint8, ids (X, Y, Z) uint8 or None, and the grid they share."""

    image: NDArray[np.uint8]
    ids: NDArray[np.uint8] | None
    grid: VolumeGrid


def read_npz(path: str | Path, spacing_order: str = "auto") -> NpzVolume:
    """Read a MedSAM2 file.

    Args:
        path: the .npz file.
        spacing_order: "xyz", "zyx", or "auto": xyz when `direction` or `origin` is there, else by the two
            equal numbers, which are the pixels of a slice.

    Raises:
        ValueError: a key is missing or has another shape or type, or the order cannot be told; names both.
    """
    if spacing_order not in SPACING_ORDERS:
        raise ValueError(f"spacing_order must be one of {', '.join(SPACING_ORDERS)}, got {spacing_order!r}")
    content = _load(Path(path))
    name = next((key for key in IMAGE_KEYS if key in content), None)
    if name is None:
        raise ValueError(f"{path}, key imgs: required, the file has {', '.join(sorted(content)) or 'no key'}")
    image = content[name]
    if image.ndim != 3 or image.dtype != np.uint8:
        raise ValueError(f"{path}, key {name}: must be uint8 (D, H, W), got {image.dtype} {image.shape}")
    ids = content.get("gts")
    if ids is not None and ids.shape != image.shape:
        raise ValueError(f"{path}, key gts: must have the shape of {name} {image.shape}, got {ids.shape}")
    turned = None if ids is None else np.ascontiguousarray(ids.astype(np.uint8).T)
    grid = VolumeGrid(image.shape[::-1], _affine(path, content, spacing_order))
    return NpzVolume(np.ascontiguousarray(image.T), turned, grid)


def write_npz(
    path: str | Path,
    hu: NDArray,
    grid: VolumeGrid,
    ids: NDArray | None = None,
    window: tuple[float, float] = (-1000.0, 1000.0),
) -> Path:
    """Write HU (X, Y, Z), windowed to 0..255, and ids (zeros where None) as a MedSAM2 file, in one step."""
    low, high = window
    scaled = np.clip((np.asarray(hu, dtype=np.float32) - low) / (high - low), 0, 1) * 255
    affine = LPS_TO_RAS @ grid.affine
    content = {
        "imgs": np.round(scaled).astype(np.uint8).T,
        "gts": np.zeros(grid.shape[::-1], np.uint8) if ids is None else np.asarray(ids, np.uint8).T,
        "spacing": np.asarray(grid.spacing),
        "direction": (affine[:3, :3] / grid.spacing).ravel(),
        "origin": affine[:3, 3],
        "window": np.asarray(window, dtype=np.float64),
    }
    with replacing(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, **content)  # type: ignore[arg-type]
    return Path(path)


def read_npz_folder(folder: str | Path, lesion_ids: Mapping[str, int] | None = None) -> list[Record]:
    """Records of the .npz files of a folder and below: an image with masks, without labels and report.

    Args:
        folder: with `*.npz`.
        lesion_ids: value in `gts` of each lesion that is outlined; by default 1..5 in the order of LESIONS.

    Raises:
        ValueError: no file, or a lesion that does not exist.
    """
    folder = Path(folder).expanduser().absolute()
    ids = {lesion: i for i, lesion in enumerate(LESIONS, 1)} if lesion_ids is None else dict(lesion_ids)
    unknown = sorted(set(ids) - set(LESIONS))
    if unknown:
        raise ValueError(f"lesion_ids must name {', '.join(LESIONS)}, got {', '.join(unknown)}")
    paths = sorted(folder.rglob("*.npz"))
    if not paths:
        raise ValueError(f"{folder} must hold .npz files, it has none")
    return [_record(path, folder, ids) for path in paths]


def _record(path: Path, folder: Path, ids: Mapping[str, int]) -> Record:
    name = "_".join(path.relative_to(folder).with_suffix("").parts)
    return Record(
        id=name, scan=name, patient=name, split="train", image=str(path), intensity="uint8_window",
        hu_source="nifti", slope=None, intercept=None, spacing=None, labels=None, report="",
        lesion_masks={lesion: str(path) for lesion in ids}, mask_values=dict(ids), regions=None,
    )  # fmt: skip


def _load(path: Path) -> dict[str, NDArray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: must be an npz file of arrays: {error}") from error


def _affine(path: str | Path, content: Mapping[str, NDArray], order: str) -> NDArray[np.float64]:
    spacing = np.asarray(content.get("spacing", ()), dtype=np.float64).ravel()
    if spacing.shape != (3,) or not (spacing > 0).all():
        raise ValueError(f"{path}, key spacing: must be three positive mm, got {spacing.tolist()}")
    if order == "auto":
        order = _guess_order(path, spacing, "direction" in content or "origin" in content)
    if order == "zyx":
        spacing = spacing[::-1]
    affine = np.eye(4)
    affine[:3, :3] = np.asarray(content.get("direction", np.eye(3)), dtype=np.float64).reshape(3, 3) * spacing
    affine[:3, 3] = np.asarray(content.get("origin", np.zeros(3)), dtype=np.float64)
    return LPS_TO_RAS @ affine


def _guess_order(path: str | Path, spacing: NDArray[np.float64], from_simpleitk: bool) -> str:
    if from_simpleitk:
        return "xyz"
    first, last = np.isclose(spacing[0], spacing[1]), np.isclose(spacing[1], spacing[2])
    if first == last:  # none or all of them equal
        if first:
            return "xyz"
        raise ValueError(
            f"{path}, key spacing: its order cannot be told from {spacing.tolist()}; "
            'give spacing_order="xyz" or "zyx"'
        )
    return "xyz" if first else "zyx"
