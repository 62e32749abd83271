"""Reads radiographs as they are seen: row 0 at the top, column 0 at the left, dense tissue bright."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# What the decoders raise for damaged files; Pillow alone has four kinds.
_DAMAGE = (OSError, EOFError, SyntaxError, ValueError, RuntimeError, struct.error)
_DICOM_DAMAGE = (*_DAMAGE, AttributeError, KeyError, TypeError, NotImplementedError)
_DEEP_MODES = ("I", "F")  # and all that begin with I;16


def read_image(path: str | Path, at_least: int | None = None) -> Tensor:
    """Read PNG, JPEG, any other format of Pillow, or DICOM as float32 (3, H, W) in 0..1.

    8-bit images are divided by 255. Grey images of 16 bit and more, and DICOM after its rescale and VOI
    window (if it has one), are scaled by their own range, since how many bits are used is written nowhere;
    MONOCHROME1 is inverted. The EXIF orientation is applied.

    Args:
        path: the file.
        at_least: a JPEG may be decoded smaller, in steps of 2, with its shorter side no less than this;
            four times faster for the images of MIMIC-CXR.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, cut short, or not one picture; names it.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"image not found: {path}")
    if _is_dicom(path):
        picture = _read_dicom(path)
    else:
        picture = _read_picture(path, at_least)
    if picture.dtype == np.uint8:
        pixels = torch.from_numpy(picture).float().div_(255)
    else:
        pixels = torch.from_numpy(_by_range(picture))
    if pixels.ndim == 2:
        return pixels.expand(3, -1, -1).contiguous()
    return pixels.permute(2, 0, 1).contiguous()


def image_problem(path: str | Path, decode: bool = True) -> str:
    """Say in a few words why a file is no usable radiograph, "" when it is one.

    `decode` reads it to the end, which finds what is cut short; without it only the header is read.
    """
    path = Path(path)
    try:
        if not path.is_file():
            return "no such file"
        if not decode:
            _read_header(path)
            return ""
        image = read_image(path, at_least=1)
    except (OSError, ValueError, ImportError) as error:
        return str(error).removeprefix(f"{path}: ")
    return "" if image.min() < image.max() else f"must show something, all pixels are {image.min():g}"


def _is_dicom(path: Path) -> bool:
    with path.open("rb") as stream:
        return path.suffix.lower() in (".dcm", ".dicom") or stream.read(132)[128:] == b"DICM"


def _read_header(path: Path) -> None:
    if _is_dicom(path):
        _open_dicom(path, stop_before_pixels=True)
    else:
        _open_picture(path).close()


def _open_picture(path: Path) -> Any:
    from PIL import Image, UnidentifiedImageError

    try:
        return Image.open(path)
    except UnidentifiedImageError as error:
        raise ValueError(f"{path}: must be an image, its format is not known") from error
    except (*_DAMAGE, Image.DecompressionBombError) as error:
        raise ValueError(f"{path}: must be an image, {_kind(error)}") from error


def _read_picture(path: Path, at_least: int | None) -> NDArray:
    """Pixels (H, W) grey or (H, W, 3), uint8 or of the depth of the file."""
    from PIL import ImageOps

    with _open_picture(path) as image:
        _check_picture(path, image)
        try:
            if at_least is not None:
                scale = at_least / min(image.size)
                image.draft(image.mode, tuple(math.ceil(side * scale) for side in image.size))
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith(_DEEP_MODES):
                return np.array(upright)
            return np.array(upright.convert("L" if upright.mode in ("1", "L", "LA") else "RGB"))
        except _DAMAGE as error:
            raise ValueError(f"{path}: cannot be decoded to its end, {_kind(error)}") from error


def _check_picture(path: Path, image: Any) -> None:
    if getattr(image, "n_frames", 1) > 1:
        raise ValueError(f"{path}: must hold one picture, got {image.n_frames}")
    # Pillow would keep the upper 8 bits, which are black when the file uses the lower 12.
    stored = image.tile[0][3] if image.tile else ""
    if "16" in str(stored) and not image.mode.startswith(_DEEP_MODES):
        raise ValueError(f"{path}: must be grey or have 8 bits per channel, got 16 bits with colour or alpha")


def _open_dicom(path: Path, stop_before_pixels: bool = False) -> Any:
    try:
        import pydicom
    except ImportError as error:
        raise ImportError(f"{path} needs pydicom; install it with: pip install 'medbundles[text]'") from error
    try:
        return pydicom.dcmread(path, stop_before_pixels=stop_before_pixels)
    except (*_DICOM_DAMAGE, pydicom.errors.InvalidDicomError) as error:
        raise ValueError(f"{path}: must be a DICOM file, {_kind(error)}") from error


def _read_dicom(path: Path) -> NDArray:
    """Pixels (H, W) or (H, W, 3) after rescale and window, bright = dense."""
    from pydicom.pixels import apply_modality_lut, apply_voi_lut

    data = _open_dicom(path)
    try:
        stored = data.pixel_array
        values = apply_modality_lut(stored, data)
        grey = str(data.PhotometricInterpretation).startswith("MONOCHROME")
        windowed = np.asarray(apply_voi_lut(values, data) if grey else values, dtype=np.float64)
        inverted = data.PhotometricInterpretation == "MONOCHROME1"
        padding = data.get("PixelPaddingValue")
    except _DICOM_DAMAGE as error:
        raise ValueError(f"{path}: its pixels cannot be decoded, {_kind(error)}") from error
    if windowed.ndim != (2 if grey else 3):
        raise ValueError(f"{path}: must hold one picture, got an array of shape {windowed.shape}")
    # Padding lies beyond all tissue; clipped to its range it stays as dark as the background.
    tissue = windowed[stored != padding] if padding is not None else windowed
    if tissue.size:
        windowed = windowed.clip(tissue.min(), tissue.max())
    return windowed.max() - windowed if inverted else windowed


def _by_range(picture: NDArray) -> NDArray[np.float32]:
    values = picture.astype(np.float64)
    low, high = float(values.min()), float(values.max())
    return ((values - low) / (high - low or 1.0)).astype(np.float32)


def _kind(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
