"""Replace a file in one step, so that a crash or a full disk never leaves half of it behind."""

from __future__ import annotations

import os
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PRIVATE = 0o600


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path` that takes its place when the block ends without an error.

    Missing parent folders are created. After an error the old file is still there, untouched, and the
    temporary one is gone. The temporary name keeps every suffix of `path`, for writers that go by it. The
    block should do nothing but write: every OSError in it is reported as this file's.

    Raises:
        OSError: the folder or file cannot be written (read-only, disk full); names `path`.
    """
    target = Path(path)
    temporary = target.with_name(f".{uuid.uuid4().hex[:12]}.{target.name}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            plain_permissions(temporary)
            temporary.replace(target)
        finally:
            if temporary.exists():
                temporary.unlink()
    except OSError as error:
        message = f"cannot write {target}: {error.strerror or error}"
        raise (OSError(error.errno, message) if error.errno else OSError(message)) from error


def plain_permissions(path: str | os.PathLike[str]) -> None:
    """Let others read a file, or the files in a folder, as the umask has it for any new file.

    Libraries that write through a temporary file (safetensors) leave 0600, whatever the umask. Files with
    other permissions stay as they are.
    """
    place = Path(path)
    private = [
        file
        for file in (place.rglob("*") if place.is_dir() else [place])
        if file.is_file() and stat.S_IMODE(file.stat().st_mode) == PRIVATE
    ]
    if not private:
        return
    # Asking for the umask would mean to set it, for all threads.
    probe = private[0].with_name(f".{uuid.uuid4().hex[:12]}.probe")
    probe.touch()
    mode = stat.S_IMODE(probe.stat().st_mode)
    probe.unlink()
    for file in private:
        file.chmod(mode)


def write_text(path: str | os.PathLike[str], text: str) -> Path:
    """Write `text` as UTF-8 to `path` in one step and return the path; errors as in `replacing`."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    return Path(path)
