"""Low-dose copies of every CT below a folder: parallel, resumable, each file written whole or not at all."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from medbundles.atomic import replacing, write_text
from tqdm import tqdm

from react_kd.dose_simulation import simulate_low_dose
from react_kd.projector import FilterName
from react_kd.scanner import NoiseModel, stable_seed

SUMMARY = "low_dose.json"
SUFFIXES = (".nii", ".nii.gz")


@dataclass(frozen=True)
class Settings:
    """What all copies of one output folder have in common; the seed is the one of the whole set."""

    photons: float
    model: NoiseModel
    n_angles: int | None
    filter_name: FilterName | None
    electronic_sigma: float
    seed: int


def main(
    input: str,
    output: str,
    photons: float | str | Sequence[float] = "50000",
    model: NoiseModel = "beer_lambert",
    n_angles: int | None = None,
    filter_name: FilterName | None = None,
    electronic_sigma: float = 0.0,
    pattern: str = "*",
    workers: int = 2,
    seed: int = 0,
    overwrite: bool = False,
) -> list[str]:
    """Write a low-dose copy of every NIfTI CT (in HU) below ``input``, for every photon count.

    The copy of ``input/a/b.nii.gz`` is ``output/beer_lambert_50000/a/b.nii.gz``, with the header, the affine
    and the kind of number (int16 or float32) of its original. Axial planes are found in any orientation of
    storage. The noise is seeded by ``seed`` and the relative path, so it does not depend on the other files.
    Finished files are skipped: a run that was stopped can be repeated. ``low_dose.json`` beside the copies
    holds the settings and the state of every file. Each worker holds one system matrix, 0.8 GB at 512 x 512.

    Args:
        input: folder of .nii and .nii.gz files, searched to any depth; hidden files are left out.
        output: folder of the copies.
        photons: photons per ray; several as "50000,1000".
        model, n_angles, filter_name, electronic_sigma: as in ``simulate_low_dose``.
        pattern: file names to take, such as "ct*"; give it where masks or PET lie beside the CT.
        workers: processes; 1 stays in this one.
        seed: seed of the whole set.
        overwrite: remove finished copies and simulate them again.

    Returns:
        The folders written, one per photon count.

    Raises:
        FileNotFoundError: if no NIfTI file below ``input`` matches.
        ValueError: for an argument out of its range, or an output folder made with other settings.
        RuntimeError: at the end, naming every file that could not be done; all others are kept.
    """
    source, target = Path(input).resolve(), Path(output).resolve()
    names = _nifti_files(source, target, pattern)
    levels = [
        Settings(level, model, n_angles, filter_name, electronic_sigma, seed) for level in _numbers(photons)
    ]
    folders = [target / f"{model}_{settings.photons:.15g}" for settings in levels]
    for settings in levels:  # a bad argument fails here, once, before anything is touched
        _simulate(np.zeros((16, 16, 1), np.float32), (1, 1, 1), settings, seed)
    for folder, settings in zip(folders, levels, strict=True):
        _prepare(folder, settings, names, overwrite)
    failures = []
    for folder, settings in zip(folders, levels, strict=True):
        states = _simulate_folder(source, folder, names, settings, workers)
        summary = {"input": str(source), "settings": asdict(settings), "files": states}
        write_text(folder / SUMMARY, json.dumps(summary, indent=1))
        failed = [name for name, state in states.items() if state not in ("done", "skipped")]
        failures += [f"{source / name}: {states[name]}" for name in failed]
    if failures:
        lines = "\n  ".join(failures)
        raise RuntimeError(f"{len(failures)} of {len(names) * len(folders)} copies failed:\n  {lines}")
    return [str(folder) for folder in folders]


def simulate_file(source: Path, target: Path, settings: Settings, seed: int) -> None:
    """Write the low-dose copy of one NIfTI CT to ``target`` in one step.

    Raises:
        ValueError: if the volume has not three dimensions and finite values.
        OSError, EOFError, nibabel.filebasedimages.ImageFileError: if it cannot be read or written.
    """
    image = nib.load(source)
    if not isinstance(image, (nib.Nifti1Image, nib.Nifti2Image)):
        raise ValueError(f"a NIfTI file is required, got {type(image).__name__}")
    hu = image.get_fdata(dtype=np.float32)
    if hu.ndim != 3:
        raise ValueError(f"a CT has 3 dimensions, got shape {hu.shape}")
    axial = int(np.argmax(nib.io_orientation(image.affine)[:, 0] == 2))
    spacing = [float(size) for size in nib.affines.voxel_sizes(image.affine)]
    spacing.append(spacing.pop(axial))
    scanned = np.moveaxis(_simulate(np.moveaxis(hu, axial, -1), spacing, settings, seed), -1, axial)
    if np.issubdtype(image.get_data_dtype(), np.integer):
        limits = np.iinfo(np.int16)
        scanned = np.rint(scanned).clip(limits.min, limits.max).astype(np.int16)
    copy = type(image)(scanned, image.affine, image.header)
    copy.set_data_dtype(scanned.dtype)
    with replacing(target) as temporary:
        nib.save(copy, temporary)


def _simulate(hu: np.ndarray, spacing_mm: Sequence[float], settings: Settings, seed: int) -> np.ndarray:
    return simulate_low_dose(hu, spacing_mm, **{**asdict(settings), "seed": seed})


def _simulate_folder(
    source: Path, folder: Path, names: list[str], settings: Settings, workers: int
) -> dict[str, str]:
    """State of every file: done, skipped, or failed with the reason."""
    states = dict.fromkeys(names, "skipped")
    todo = [name for name in names if not (folder / name).exists()]
    with _executor(min(workers, len(todo))) as executor:
        jobs = {}
        for name in todo:
            seed = stable_seed(settings.seed, name, settings.photons)
            jobs[executor.submit(simulate_file, source / name, folder / name, settings, seed)] = name
        for job in tqdm(as_completed(jobs), total=len(jobs), desc=folder.name, unit="file"):
            error = job.exception()
            states[jobs[job]] = "done" if error is None else f"failed: {type(error).__name__}: {error}"
    return states


def _prepare(folder: Path, settings: Settings, names: list[str], overwrite: bool) -> None:
    """Write the settings before any copy, so that copies of other settings are never taken for finished."""
    summary = folder / SUMMARY
    found = json.loads(summary.read_text(encoding="utf-8")) if summary.exists() else None
    if overwrite:
        for name in {*names, *(found or {}).get("files", ())}:
            (folder / name).unlink(missing_ok=True)
    elif found and found["settings"] != asdict(settings):
        raise ValueError(
            f"{folder} was made with {found['settings']}, not {asdict(settings)}: "
            "choose another output, or overwrite=True"
        )
    if overwrite or not found:
        write_text(summary, json.dumps({"settings": asdict(settings)}, indent=1))


def _nifti_files(source: Path, target: Path, pattern: str) -> list[str]:
    names = []
    for path in sorted(source.rglob(pattern)):
        name = path.relative_to(source)
        hidden = any(part.startswith(".") for part in name.parts)
        if path.name.endswith(SUFFIXES) and not hidden and target not in path.parents:
            names.append(name.as_posix())
    if not names:
        raise FileNotFoundError(f"no {' or '.join(SUFFIXES)} file named {pattern!r} below {source}")
    return names


def _numbers(photons: float | str | Sequence[float]) -> list[float]:
    parts = photons.split(",") if isinstance(photons, str) else np.atleast_1d(photons).tolist()
    return [float(part) for part in parts]


@contextmanager
def _executor(workers: int) -> Iterator[Executor]:
    if workers > 1:
        # Forked children can hang in a thread pool that torch has used, so they are started afresh.
        start = partial(torch.set_num_threads, 1)
        context = multiprocessing.get_context("spawn")
        executor: Executor = ProcessPoolExecutor(workers, mp_context=context, initializer=start)
    else:
        executor = ThreadPoolExecutor(1)
    try:
        yield executor
    finally:
        executor.shutdown(cancel_futures=True)


if __name__ == "__main__":
    import fire

    fire.Fire(main)
