"""Files that are replaced in one step: their permissions are those of any new file."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from medbundles.atomic import plain_permissions, replacing


@pytest.fixture
def umask() -> Iterator[int]:
    old = os.umask(0o027)
    yield 0o027
    os.umask(old)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def write_private(path: Path) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))


def test_a_replaced_file_respects_the_umask_however_it_was_written(tmp_path: Path, umask: int) -> None:
    with replacing(tmp_path / "weights") as temporary:
        write_private(temporary)
    assert mode(tmp_path / "weights") == 0o666 & ~umask
    assert [path.name for path in tmp_path.iterdir()] == ["weights"]


def test_a_private_umask_stays_private(tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        with replacing(tmp_path / "weights") as temporary:
            write_private(temporary)
    finally:
        os.umask(old)
    assert mode(tmp_path / "weights") == 0o600


def test_only_private_files_of_a_folder_are_opened(tmp_path: Path, umask: int) -> None:
    (tmp_path / "deep").mkdir()
    for name, given in (("a", 0o600), ("deep/b", 0o600), ("deep/c", 0o555)):
        write_private(tmp_path / name)
        (tmp_path / name).chmod(given)
    plain_permissions(tmp_path)
    assert [mode(tmp_path / name) for name in ("a", "deep/b", "deep/c")] == [0o640, 0o640, 0o555]
