"""The command over a folder: same files elsewhere, nothing half written, nothing done twice."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from react_kd import low_dose_folder
from react_kd.dose_simulation import simulate_low_dose
from react_kd.low_dose_folder import main
from react_kd.scanner import stable_seed

SHAPE, SPACING = (16, 20, 3), (9.0, 9.0, 5.0)


def volume() -> np.ndarray:
    hu = np.full(SHAPE, -1000, np.int16)
    hu[4:12, 5:15] = 50
    return hu


def write(path: Path, hu: np.ndarray, affine: np.ndarray | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(hu, np.diag([*SPACING, 1.0]) if affine is None else affine)
    image.header["descrip"] = b"kept"
    nib.save(image, path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    source = tmp_path / "in"
    write(source / "a.nii.gz", volume())
    write(source / "deep" / "b.nii", volume().astype(np.float32))
    return source


def test_copies_keep_place_affine_header_and_kind_of_number(folder: Path, tmp_path: Path) -> None:
    (written,) = main(str(folder), str(tmp_path / "out"), workers=1, seed=4)
    assert written == str(tmp_path / "out" / "beer_lambert_50000")
    for name, dtype in (("a.nii.gz", np.int16), ("deep/b.nii", np.float32)):
        original, copy = nib.load(folder / name), nib.load(Path(written) / name)
        assert np.array_equal(copy.affine, original.affine)
        assert copy.header["descrip"] == original.header["descrip"]
        assert copy.get_data_dtype() == dtype
        expected = simulate_low_dose(volume(), SPACING, 50000, seed=stable_seed(4, name, 50000.0))
        assert np.abs(copy.get_fdata() - expected).max() <= 0.5001
    assert sorted(p.name for p in Path(written).rglob("*") if p.is_file()) == [
        "a.nii.gz",
        "b.nii",
        "low_dose.json",
    ]


def test_processes_give_what_one_process_gives(folder: Path, tmp_path: Path) -> None:
    (alone,) = main(str(folder), str(tmp_path / "one"), "1000", workers=1)
    (together,) = main(str(folder), str(tmp_path / "two"), 1000, workers=2)
    for name in ("a.nii.gz", "deep/b.nii"):
        one, two = nib.load(Path(alone) / name).get_fdata(), nib.load(Path(together) / name).get_fdata()
        assert np.array_equal(one, two)


def test_axial_planes_are_found_in_another_orientation(tmp_path: Path) -> None:
    affine = np.array([[0, SPACING[0], 0, 0], [0, 0, SPACING[1], 0], [SPACING[2], 0, 0, 0], [0, 0, 0, 1.0]])
    write(tmp_path / "in" / "ct.nii", np.moveaxis(volume(), -1, 0).astype(np.float32), affine)
    (written,) = main(str(tmp_path / "in"), str(tmp_path / "out"), workers=1)
    expected = simulate_low_dose(volume(), SPACING, 50000, seed=stable_seed(0, "ct.nii", 50000.0))
    scanned = nib.load(Path(written) / "ct.nii").get_fdata()
    assert np.allclose(np.moveaxis(scanned, 0, -1), expected, atol=1e-3)


def test_a_second_run_does_only_what_is_missing(folder: Path, tmp_path: Path) -> None:
    (written,) = main(str(folder), str(tmp_path / "out"), workers=1)
    first, second = Path(written) / "a.nii.gz", Path(written) / "deep" / "b.nii"
    before = second.read_bytes()
    first.write_bytes(b"finished before")
    second.unlink()
    main(str(folder), str(tmp_path / "out"), workers=1)
    assert first.read_bytes() == b"finished before"
    assert second.read_bytes() == before
    states = json.loads((Path(written) / "low_dose.json").read_text())
    assert states["files"] == {"a.nii.gz": "skipped", "deep/b.nii": "done"}
    assert states["settings"]["photons"] == 50000
    main(str(folder), str(tmp_path / "out"), workers=1, overwrite=True)
    assert first.read_bytes() != b"finished before"


def test_other_settings_never_mix_in_one_folder(folder: Path, tmp_path: Path) -> None:
    main(str(folder), str(tmp_path / "out"), workers=1)
    with pytest.raises(ValueError, match="overwrite=True"):
        main(str(folder), str(tmp_path / "out"), workers=1, seed=1)
    folders = main(str(folder), str(tmp_path / "out"), "1000000,500", "linear", workers=1)
    assert [Path(path).name for path in folders] == ["linear_1000000", "linear_500"]


def test_broken_files_are_named_at_the_end_and_the_others_are_done(folder: Path, tmp_path: Path) -> None:
    write(folder / "four.nii", np.zeros((4, 4, 2, 2), np.int16))
    whole = (folder / "a.nii.gz").read_bytes()
    (folder / "broken.nii.gz").write_bytes(whole[: len(whole) // 2])
    (folder / "text.nii").write_text("not an image")
    with pytest.raises(RuntimeError, match="3 of 5 copies failed") as caught:
        main(str(folder), str(tmp_path / "out"), workers=1)
    for name in ("four.nii", "broken.nii.gz", "text.nii"):
        assert str(folder / name) in str(caught.value)
    written = tmp_path / "out" / "beer_lambert_50000"
    files = json.loads((written / "low_dose.json").read_text())["files"]
    assert [name for name, state in files.items() if state == "done"] == ["a.nii.gz", "deep/b.nii"]
    assert "a CT has 3 dimensions, got shape (4, 4, 2, 2)" in files["four.nii"]
    assert len([path for path in written.rglob("*") if path.is_file()]) == 3


def test_a_failed_write_leaves_no_half_file(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(image: nib.Nifti1Image, path: Path) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(low_dose_folder.nib, "save", full_disk)
    with pytest.raises(RuntimeError, match="No space left on device"):
        main(str(folder), str(tmp_path / "out"), workers=1)
    assert [path.name for path in (tmp_path / "out").rglob("*") if path.is_file()] == ["low_dose.json"]


def test_names_can_be_chosen_and_copies_below_the_input_are_left_out(folder: Path) -> None:
    (written,) = main(str(folder), str(folder / "out"), workers=1, pattern="a*")
    assert [path.name for path in Path(written).rglob("*.nii*")] == ["a.nii.gz"]
    main(str(folder), str(folder / "out"), workers=1)
    assert len(list(Path(written).rglob("*.nii*"))) == 2


def test_bad_arguments_stop_before_anything_is_written(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no \.nii or \.nii\.gz file named"):
        main(str(tmp_path / "nowhere"), str(tmp_path / "out"))
    with pytest.raises(ValueError, match="photons must be positive"):
        main(str(folder), str(tmp_path / "out"), "0")
    with pytest.raises(ValueError, match="model must be one of"):
        main(str(folder), str(tmp_path / "out"), model="gauss")  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()
