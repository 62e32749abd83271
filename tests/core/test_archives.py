"""Extraction takes what was asked for and nothing that could leave the folder."""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest
from medbundles.archives import extract


def _zip(path: Path, files: dict[str, bytes], link: str | None = None) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
        if link:
            info = zipfile.ZipInfo(link)
            info.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(info, "/etc/passwd")
    return path


def _tar(path: Path, files: dict[str, bytes], link: str | None = None) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        if link:
            info = tarfile.TarInfo(link)
            info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(info)
    return path


@pytest.mark.parametrize("build", [_zip, _tar])
def test_only_matching_members_are_written_below_the_folder(tmp_path: Path, build) -> None:
    archive = build(tmp_path / "a", {"pkg/data/a.csv": b"1", "pkg/data/sub/b.csv": b"2", "pkg/code.py": b"x"})
    written = extract(archive, ["pkg/data/*"], "pkg/data/", tmp_path / "out")
    names = sorted(p.relative_to(tmp_path / "out").as_posix() for p in written)
    assert names == ["a.csv", "sub/b.csv"]
    assert (tmp_path / "out/sub/b.csv").read_bytes() == b"2"
    assert sorted(p.name for p in (tmp_path / "out").rglob("*") if p.is_file()) == ["a.csv", "b.csv"]


@pytest.mark.parametrize("build", [_zip, _tar])
@pytest.mark.parametrize(
    "name", ["../evil.txt", "pkg/../../evil.txt", "/evil.txt", "pkg\\..\\evil.txt", "C:evil.txt"]
)
def test_a_member_that_leaves_the_folder_is_refused(tmp_path: Path, build, name: str) -> None:
    archive = build(tmp_path / "a", {name: b"x"})
    with pytest.raises(ValueError, match="relative paths"):
        extract(archive, ["*"], "", tmp_path / "deep/out")
    assert not list(tmp_path.rglob("*evil*"))


@pytest.mark.parametrize("build", [_zip, _tar])
def test_a_link_is_refused(tmp_path: Path, build) -> None:
    archive = build(tmp_path / "a", {}, link="pkg/link")
    with pytest.raises(ValueError, match=r"pkg/link is a link"):
        extract(archive, ["pkg/*"], "pkg/", tmp_path / "out")


def test_more_bytes_than_allowed_are_refused(tmp_path: Path) -> None:
    archive = _zip(tmp_path / "a", {"a": bytes(600), "b": bytes(600)})
    with pytest.raises(ValueError, match="at most 1000 bytes"):
        extract(archive, ["*"], "", tmp_path / "out", max_bytes=1000)
    assert len(extract(archive, ["*"], "", tmp_path / "out", max_bytes=1200)) == 2


def test_a_missing_member_is_named(tmp_path: Path) -> None:
    archive = _zip(tmp_path / "a", {"a.csv": b""})
    with pytest.raises(ValueError, match=r"b\.csv"):
        extract(archive, ["a.csv", "b.csv"], "", tmp_path / "out")


def test_something_else_than_an_archive_is_refused(tmp_path: Path) -> None:
    plain = tmp_path / "a.whl"
    plain.write_bytes(b"not an archive" * 100)
    with pytest.raises(ValueError, match="zip or tar"):
        extract(plain, ["*"], "", tmp_path / "out")
