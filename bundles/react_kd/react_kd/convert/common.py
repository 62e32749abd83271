"""What all converters share: writing volumes and datalists, going through cases, reporting failures."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import nibabel as nib
import numpy as np
from medbundles.atomic import replacing, write_text
from numpy.typing import NDArray

from react_kd.cases import CLASSES

logger = logging.getLogger(__name__)
Case = dict[str, Any]
Item = TypeVar("Item")
Result = TypeVar("Result")


def source_folder(path: str | Path) -> Path:
    """Return the absolute folder, or raise FileNotFoundError."""
    folder = Path(path).expanduser().absolute()
    if not folder.is_dir():
        raise FileNotFoundError(f"source must be an existing folder, got {folder}")
    return folder


def load_nifti(path: Path) -> nib.Nifti1Image:
    """Open a 3-D NIfTI file without reading its voxels; raises ValueError naming the file otherwise."""
    try:
        image: Any = nib.load(path)
    except (nib.filebasedimages.ImageFileError, OSError, EOFError) as error:
        raise ValueError(f"{path} must be a readable NIfTI file: {error}") from error
    if len(image.shape) != 3:
        raise ValueError(f"{path} must have 3 dimensions, got shape {image.shape}")
    return image


def check_same_grid(first: Path, second: Path) -> None:
    """Raise ValueError unless two NIfTI files have one shape and one affine (0.01 mm)."""
    a, b = load_nifti(first), load_nifti(second)
    if a.shape != b.shape:
        raise ValueError(f"{second} must lie on the grid of {first}: shape {a.shape}, got {b.shape}")
    if not np.allclose(a.affine, b.affine, atol=1e-2):
        raise ValueError(
            f"{second} must lie on the grid of {first}: affine\n{a.affine.round(3)}, got\n{b.affine.round(3)}"
        )


def save_volume(array: NDArray, affine: NDArray, path: Path) -> None:
    """Write (X, Y, Z) as NIfTI in one step; floats are stored as scaled int16, as scanners store PET."""
    image = nib.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    if array.dtype.kind == "f":
        image.set_data_dtype(np.int16)
    with replacing(path) as temporary:
        nib.save(image, temporary)


def write_datalist(folder: Path, name: str, splits: dict[str, list[Case]], **notes: Any) -> Path:
    """Write `folder`/datalist.json and return its path; paths below `folder` become relative to it."""

    def relative(case: Case) -> Case:
        return {k: _below(folder, v) if isinstance(v, Path) else v for k, v in case.items()}

    content = {"name": name, "classes": list(CLASSES), **notes}
    content |= {split: [relative(case) for case in cases] for split, cases in splits.items() if cases}
    return write_text(folder / "datalist.json", json.dumps(content, indent=1))


def convert_each(
    items: Sequence[Item], convert: Callable[[Item], Result | None], title: str, progress: bool
) -> tuple[list[Result], list[str]]:
    """Apply `convert` to every item; return the results and the message of each item that raised ValueError.

    One bad scan does not lose the others; `stop_if_failed` reports it after the datalist is written.
    """
    from tqdm import tqdm

    results: list[Result] = []
    failures: list[str] = []
    for item in tqdm(items, desc=title, ncols=100, disable=not progress):
        try:
            result = convert(item)
        except ValueError as error:
            logger.error("%s: %s", title, error)
            failures.append(str(error))
        else:
            if result is not None:
                results.append(result)
    return results, failures


def stop_if_failed(failures: Iterable[str], datalist: Path, converted: int) -> None:
    """Raise ValueError that lists all failures; the datalist with the others stays."""
    lines = list(failures)
    if lines:
        raise ValueError(
            f"{len(lines)} cases could not be converted, {datalist} holds the other {converted}:\n"
            + "\n".join(lines)
        )


def check_choice(name: str, value: str, allowed: Sequence[str]) -> None:
    """Raise ValueError unless `value` is one of `allowed`."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {list(allowed)}, got {value!r}")


def _below(folder: Path, path: Path) -> str:
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)
