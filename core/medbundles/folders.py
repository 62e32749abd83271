"""What can be known of an output folder before a run begins: writable, and room on its disk."""

import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path


def check_writable(folder: str | Path) -> Path:
    """Create a folder, write and remove a file in it, and return it; OSError naming it when that fails."""
    folder = Path(folder).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0")
    except OSError as error:
        raise OSError(f"output folder must be writable, got {folder}: {error.strerror or error}") from error
    return folder


def check_outputs(folders: Iterable[str | Path], needed_bytes: float = 200e6) -> None:
    """Raise OSError before a run begins if a folder cannot be written or its disk has too little space."""
    for folder in folders:
        check_writable(folder)
        check_free_space(folder, needed_bytes)


def check_free_space(folder: str | Path, needed_bytes: float) -> None:
    """Raise OSError when the disk of `folder`, which may not exist yet, has less than `needed_bytes` free."""
    folder = Path(folder).expanduser().absolute()
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if free < needed_bytes:
        needed, left = needed_bytes / 2**20, free / 2**20
        raise OSError(
            f"output folder {folder} needs {needed:.0f} MiB of free space, its disk has {left:.0f} MiB"
        )
