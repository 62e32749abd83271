"""Safe extraction of chosen members from a downloaded zip (wheel) or tar archive."""

from __future__ import annotations

import fnmatch
import functools
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

MAX_BYTES = 2 * 1024**3  # all extracted members together
MAX_MEMBERS = 20_000
_CHUNK = 1024 * 1024

Opener = Callable[[], IO[bytes]]


def extract(
    archive: Path, patterns: Sequence[str], root: str, folder: Path, *, max_bytes: int = MAX_BYTES
) -> list[Path]:
    """Extract the members that match shell `patterns` into `folder`, `root` cut from their names.

    Returns the files written. Raises ValueError on an absolute path, "..", a link, more than `max_bytes` or
    MAX_MEMBERS, a pattern without a member, or a file that is neither zip nor tar.
    """
    written: list[Path] = []
    budget = max_bytes
    unmatched = set(patterns)
    with _members(archive) as members:
        for name, regular, opener in members:
            hits = [p for p in patterns if fnmatch.fnmatchcase(name, p)]
            if not hits or name.endswith("/"):
                continue
            unmatched.difference_update(hits)
            if not regular:
                raise ValueError(f"{archive.name} must hold regular files, {name} is a link or device")
            if len(written) == MAX_MEMBERS:
                raise ValueError(f"{archive.name} must hold at most {MAX_MEMBERS} matching members")
            target = folder / safe_relative(name, root, archive.name)
            target.parent.mkdir(parents=True, exist_ok=True)
            with opener() as source, target.open("wb") as sink:
                budget -= _copy(
                    source, sink, budget, f"{archive.name} must unpack to at most {max_bytes} bytes"
                )
            written.append(target)
    if unmatched:
        raise ValueError(f"{archive.name} must hold {sorted(unmatched)}, found no such member")
    return written


def safe_relative(name: str, root: str, archive: str) -> Path:
    """Return `name` without `root` as a relative path, or raise ValueError if it could leave the folder."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name:
        raise ValueError(f"{archive} must hold relative paths without '..', got member {name!r}")
    inside = path.relative_to(PurePosixPath(root)) if name.startswith(root) else path
    return Path(*inside.parts)


def _copy(source: IO[bytes], sink: IO[bytes], budget: int, message: str) -> int:
    # Counts the bytes that really come out: the size an archive declares can lie.
    total = 0
    while chunk := source.read(_CHUNK):
        total += len(chunk)
        if total > budget:
            raise ValueError(message)
        sink.write(chunk)
    return total


@contextmanager
def _members(archive: Path) -> Iterator[Iterator[tuple[str, bool, Opener]]]:
    """Iterate over (name, is a regular file, opener) of a zip or tar archive."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as wheel:
            yield ((i.filename, _is_regular(i), functools.partial(wheel.open, i)) for i in wheel.infolist())
    elif tarfile.is_tarfile(archive):
        with tarfile.open(archive) as tar:
            yield ((i.name, i.isfile(), functools.partial(_open_tar, tar, i)) for i in tar if not i.isdir())
    else:
        raise ValueError(f"{archive} must be a zip or tar archive")


def _open_tar(tar: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    stream = tar.extractfile(info)
    if stream is None:
        raise ValueError(f"{info.name} must be a regular file")
    return stream


def _is_regular(info: zipfile.ZipInfo) -> bool:
    kind = stat.S_IFMT(info.external_attr >> 16)
    return kind in (0, stat.S_IFREG)
