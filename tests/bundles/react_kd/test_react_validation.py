"""Validation before training: each kind of damage is found, named, and reported together with all others."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from medbundles.folders import check_free_space, check_writable
from react_case_files import AFFINE, LIVER, MASS, PET_AFFINE, SHAPE, ct, pet, save, write_case, write_dicom
from react_kd import file_facts
from react_kd.validation import validate_cases

TRAINING = ("image", "liver", "mass")


@pytest.fixture(autouse=True)
def _own_cache(cache: Path) -> None:
    """Every test starts with an empty cache of checked images."""


def problems(*cases: dict[str, Any], **options: Any) -> str:
    with pytest.raises(ValueError, match="problems in the data") as caught:
        validate_cases(cases, **{"require": TRAINING, "progress": False, **options})
    return str(caught.value)


def test_sound_cases_pass(tmp_path: Path) -> None:
    graded = write_case(tmp_path)
    ungraded = write_case(tmp_path, "s1", label=None, mass=0 * MASS.astype(np.uint8), pet_act=None)
    dicom = {**write_case(tmp_path, "s2"), "image": write_dicom(tmp_path / "series", ct())}
    validate_cases([graded, ungraded, dicom], TRAINING, progress=False)


def far_pet(folder: Path) -> str:
    return save(folder / "x.nii.gz", pet(), PET_AFFINE + np.array([[0] * 4, [0] * 4, [0, 0, 0, 40], [0] * 4]))


def coarse_mask(folder: Path) -> str:
    return save(folder / "x.nii.gz", LIVER[::2].astype(np.uint8), AFFINE @ np.diag([2.0, 1, 1, 1]))


def shifted_mask(folder: Path) -> str:
    return save(folder / "x.nii.gz", MASS.astype(np.uint8), AFFINE + np.eye(4, k=3) * 3)


def with_value(value: float) -> Callable[[Path], str]:
    def write(folder: Path) -> str:
        array = ct().astype(np.float32)
        array[3, 4, 5] = value
        return save(folder / "x.nii.gz", array)

    return write


def truncated(suffix: str) -> Callable[[Path], str]:
    def write(folder: Path) -> str:
        path = Path(save(folder / f"x{suffix}", ct()))
        path.write_bytes(path.read_bytes()[:-2000])
        return str(path)

    return write


def corrupt(folder: Path) -> str:
    path = Path(save(folder / "x.nii.gz", ct()))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    return str(path)


def text_file(folder: Path) -> str:
    (folder / "x.txt").write_text("no image")
    return str(folder / "x.txt")


def two_series(folder: Path) -> str:
    write_dicom(folder / "x", ct()[:, :, :4], name="a")
    return write_dicom(folder / "x", ct()[:, :, :4], name="b")


def array(values: Callable[[], np.ndarray]) -> Callable[[Path], str]:
    return lambda folder: save(folder / "x.nii.gz", values())


@pytest.mark.parametrize(
    ("key", "damage", "message"),
    [
        ("image", truncated(".nii.gz"), "cannot be read (EOFError"),
        ("image", truncated(".nii"), "cannot be read (OSError"),
        ("image", corrupt, "cannot be read ("),
        ("image", text_file, "must be a NIfTI file (.nii, .nii.gz) or a folder of one DICOM series"),
        ("image", two_series, "must hold one DICOM series, holds 2"),
        ("image", array(lambda: ct()[..., None]), "three dimensions, got shape (40, 36, 20, 1)"),
        ("image", array(lambda: ct()[:, :, 0]), "three dimensions, got shape (40, 36"),
        ("image", with_value(np.nan), "holds 1 NaN or infinite voxels"),
        ("pet_fdg", with_value(np.inf), "holds 1 NaN or infinite voxels"),
        ("image", array(lambda: (ct() + 1000) / 2000.0), "must be a CT in HU, with air or fat below 0"),
        ("image", array(lambda: (ct() + 1100).astype(np.uint16)), "must be a CT in HU"),
        ("liver", array(lambda: np.zeros(SHAPE, np.uint8)), "must not be empty"),
        ("mass", array(lambda: np.zeros(SHAPE, np.uint8)), "a graded case needs a lesion"),
        ("liver", array(lambda: LIVER.astype(np.uint8) + MASS), "one value besides 0, got several up to 2"),
        ("liver", coarse_mask, "must lie on the grid of the CT, (40, 36, 20) at x -28..50"),
        ("mass", shifted_mask, "must lie on the grid of the CT"),
        ("pet_act", far_pet, "must cover 95% of the liver, got "),
        ("pet_act", lambda f: save(f / "x.nii.gz", 0 * pet(), PET_AFFINE), "must show uptake"),
        ("liver", lambda f: str(f / "gone.nii.gz"), "no such file"),
    ],
)
def test_damage_is_named(tmp_path: Path, key: str, damage: Callable[[Path], str], message: str) -> None:
    case = {**write_case(tmp_path)}
    case[key] = damage(tmp_path)
    text = problems(case)
    assert text.startswith("1 problems")
    assert f"case s0, key {key}" in text
    assert case[key] in text
    assert message in text


def test_pet_message_gives_both_extents(tmp_path: Path) -> None:
    text = problems({**write_case(tmp_path), "pet_act": far_pet(tmp_path)})
    assert "PET lies at x -30..51, y -34..26, z -5..100 mm; CT at x -28..50, y -30..22, z -40..55 mm" in text


def test_all_problems_come_together(tmp_path: Path) -> None:
    first = {**write_case(tmp_path), "label": 7, "image": truncated(".nii.gz")(tmp_path)}
    second = write_case(tmp_path, "s1", liver=None, mass=0 * MASS.astype(np.uint8))
    text = problems(first, second)
    assert text.startswith("4 problems")
    for part in (
        "case s0, key label",
        "case s0, key image",
        "case s1, key liver: required",
        "case s1, key mass",
    ):
        assert part in text


def test_lesion_may_be_optional(tmp_path: Path) -> None:
    case = write_case(tmp_path, mass=0 * MASS.astype(np.uint8))
    validate_cases([case], TRAINING, progress=False, allow_no_lesion=True)
    assert "a graded case needs a lesion" in problems(case)


def test_shallow_check_reads_no_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_facts, "read_facts", lambda *_: pytest.fail("an image was read"))
    validate_cases([write_case(tmp_path)], TRAINING, deep=False)
    assert "key liver: required" in problems(write_case(tmp_path, "s1", liver=None), deep=False)
    assert "at least one case" in problems(deep=False)


def test_second_start_reads_only_what_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    read = file_facts.read_facts
    seen: list[str] = []
    monkeypatch.setattr(file_facts, "read_facts", lambda path, mask: (seen.append(path), read(path, mask))[1])
    case = write_case(tmp_path)
    for _ in range(2):
        validate_cases([case], TRAINING, progress=False)
    assert len(seen) == 5
    os.utime(case["mass"], ns=(1, 1))
    validate_cases([case], TRAINING, progress=False)
    assert seen[5:] == [case["mass"]]
    stored = cache / "react_kd" / "checked_images.json"
    assert len(json.loads(stored.read_text())["files"]) == 6
    stored.write_text("{broken")
    validate_cases([case], TRAINING, progress=False)
    assert len(seen) == 11


def test_damaged_files_are_read_again(tmp_path: Path) -> None:
    case = {**write_case(tmp_path), "image": truncated(".nii.gz")(tmp_path)}
    assert problems(case) == problems(case)


def test_output_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(check_writable(tmp_path / "a" / "b").iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"output folder must be writable, got .*file/out"):
        check_writable(tmp_path / "file" / "out")

    def refuse(**_: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(OSError, match="Read-only file system"):
        check_writable(tmp_path)


def test_free_space(tmp_path: Path) -> None:
    check_free_space(tmp_path / "not" / "there", 1)
    with pytest.raises(OSError, match="needs 1099511627776 MiB of free space, its disk has"):
        check_free_space(tmp_path / "not" / "there", 2**60)
