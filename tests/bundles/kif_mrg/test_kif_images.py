"""Reading radiographs: orientation, depth, MONOCHROME1, and errors that name the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from kif_case_files import RAMP, cut_short, save_dicom, save_picture
from kif_mrg.images import image_problem, read_image
from PIL import Image

DEEP = np.linspace(300, 4000, 20 * 30).reshape(20, 30).astype(np.uint16)  # 12 bits in 16


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_red_band_stays_on_the_top_row(tmp_path: Path, suffix: str) -> None:
    array = np.zeros((20, 40, 3), np.uint8)
    array[:4, :, 0] = 255
    array[:, :4, 2] = 255
    image = read_image(save_picture(tmp_path / f"x{suffix}", array))
    assert image.shape == (3, 20, 40)
    assert image[0, :4].mean() > 0.9 > 0.1 > image[0, 8:].mean()
    assert image[2, :, :4].mean() > 0.9 > 0.1 > image[2, :, 8:].mean()


def test_eight_bit_grey_is_divided_by_255_in_three_equal_channels(tmp_path: Path) -> None:
    image = read_image(save_picture(tmp_path / "x.png", RAMP // 2))
    assert image.dtype == torch.float32
    assert image.is_contiguous()
    for channel in image:
        np.testing.assert_allclose(channel, (RAMP // 2) / 255, atol=1e-7)


def test_sixteen_bit_png_is_scaled_by_its_own_range(tmp_path: Path) -> None:
    image = read_image(save_picture(tmp_path / "x.png", DEEP))
    np.testing.assert_allclose(image[1], (DEEP - 300.0) / 3700, atol=1e-6)


def test_transparency_palette_and_orientation_flag_are_understood(tmp_path: Path) -> None:
    colour = np.dstack([RAMP, RAMP.T.reshape(RAMP.shape), 255 - RAMP])
    plain = read_image(save_picture(tmp_path / "rgb.png", colour))
    alpha = np.dstack([colour, np.full_like(RAMP, 7)])
    assert torch.equal(read_image(save_picture(tmp_path / "rgba.png", alpha)), plain)
    Image.fromarray(RAMP).convert("P").save(tmp_path / "p.png")
    assert torch.equal(read_image(tmp_path / "p.png"), read_image(save_picture(tmp_path / "l.png")))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera lay on its side: show it turned clockwise
    turned = read_image(save_picture(tmp_path / "turned.png", RAMP, exif=exif))
    np.testing.assert_allclose(turned[0], np.rot90(RAMP, -1) / 255, atol=1e-7)


def test_dicom_monochrome1_is_the_negative_of_monochrome2(tmp_path: Path) -> None:
    bright = read_image(save_dicom(tmp_path / "two.dcm", DEEP))
    np.testing.assert_allclose(bright[0], (DEEP - 300.0) / 3700, atol=1e-6)
    dark = read_image(save_dicom(tmp_path / "one.dcm", DEEP, "MONOCHROME1"))
    torch.testing.assert_close(dark, 1 - bright)
    named_without_suffix = tmp_path / "two"
    (tmp_path / "two.dcm").rename(named_without_suffix)
    assert torch.equal(read_image(named_without_suffix), bright)


def test_dicom_rescale_and_window_are_applied(tmp_path: Path) -> None:
    window = {"RescaleSlope": 2, "RescaleIntercept": -1000, "RescaleType": "US"}
    window |= {"WindowCenter": 1000, "WindowWidth": 1000}  # 500..1500 after the rescale, 750..1250 as stored
    image = read_image(save_dicom(tmp_path / "x.dcm", DEEP, **window))
    expected = ((DEEP * 2.0 - 1000 - 500) / 1000).clip(0, 1)
    np.testing.assert_allclose(image[0], expected, atol=2e-3)


@pytest.mark.parametrize(("photometric", "padding"), [("MONOCHROME2", 0), ("MONOCHROME1", 65535)])
def test_dicom_padding_is_background_and_does_not_set_the_range(
    tmp_path: Path, photometric: str, padding: int
) -> None:
    padded = DEEP.copy()
    padded[:, :5] = padding
    tags = {"PixelPaddingValue": padding}
    image = read_image(save_dicom(tmp_path / "x.dcm", padded, photometric, **tags))[0]
    bare = read_image(save_dicom(tmp_path / "y.dcm", DEEP[:, 5:], photometric))[0]
    torch.testing.assert_close(image[:, 5:], bare)
    assert image[:, :5].max() == 0


def test_large_jpeg_may_be_decoded_smaller_but_never_below_the_wish(tmp_path: Path) -> None:
    ramp = np.linspace(0, 255, 320 * 480).reshape(320, 480).astype(np.uint8)
    path = save_picture(tmp_path / "x.jpg", ramp, quality=95)
    whole, small = read_image(path), read_image(path, at_least=70)
    assert small.shape == (3, 80, 120)
    means = torch.nn.functional.avg_pool2d(whole[None], 4)[0]
    assert (small - means).abs().max() < 0.02
    assert read_image(path, at_least=330).shape == (3, 320, 480)


def damaged(folder: Path) -> dict[str, tuple[str, str]]:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)
    (folder / "notes.png").write_text("no picture")
    (folder / "empty.jpg").touch()
    (folder / "fake.dcm").write_text("no DICOM")
    colour16 = folder / "colour16.png"
    colour16.write_bytes(sixteen_bit_colour_png())
    frames = [Image.fromarray(noise), Image.fromarray(255 - noise)]
    frames[0].save(folder / "film.tif", save_all=True, append_images=frames[1:])
    for name in ("cut.jpg", "cut.png"):
        save_picture(folder / name, noise)
    save_dicom(folder / "cut.dcm", DEEP)
    return {
        "missing": (str(folder / "missing.png"), "no such file|not found"),
        "text": (str(folder / "notes.png"), "must be an image"),
        "empty": (str(folder / "empty.jpg"), "must be an image"),
        "fake": (str(folder / "fake.dcm"), "must be a DICOM file"),
        "colour16": (str(colour16), "must be grey or have 8 bits per channel"),
        "film": (str(folder / "film.tif"), "must hold one picture, got 2"),
        "frames": (save_dicom(folder / "f.dcm", np.stack([DEEP, DEEP])), "must hold one picture"),
        "jpeg": (cut_short(folder / "cut.jpg"), "cannot be decoded to its end, OSError: .*truncated"),
        "png": (cut_short(folder / "cut.png"), "cannot be decoded to its end, OSError: .*truncated"),
        "dicom": (cut_short(folder / "cut.dcm"), "its pixels cannot be decoded"),
    }


def sixteen_bit_colour_png() -> bytes:
    import struct
    import zlib

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    rows = b"".join(b"\0" + bytes(range(12)) for _ in range(2))  # 2 x 2 pixels of 3 x 16 bits
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_damage_is_named_with_its_file(tmp_path: Path) -> None:
    for path, expected in damaged(tmp_path).values():
        with pytest.raises((ValueError, FileNotFoundError), match=expected) as caught:
            read_image(path)
        assert path in str(caught.value)
        assert image_problem(path)
        assert path not in image_problem(path)


def test_header_alone_shows_what_is_no_image_but_not_what_is_cut(tmp_path: Path) -> None:
    files = damaged(tmp_path)
    assert [bool(image_problem(files[kind][0], decode=False)) for kind in ("missing", "text", "fake")] == [
        True
    ] * 3
    assert image_problem(files["jpeg"][0], decode=False) == ""


def test_sound_images_have_no_problem_and_flat_ones_do(tmp_path: Path) -> None:
    assert image_problem(save_picture(tmp_path / "a.jpg")) == ""
    assert image_problem(save_dicom(tmp_path / "a.dcm", DEEP)) == ""
    assert "all pixels are 0" in image_problem(save_picture(tmp_path / "black.png", 0 * RAMP))


def test_real_dicom_radiograph_has_dark_lungs(sample: Callable[[str], Path]) -> None:
    (path,) = sample("chest_xray_dicom").rglob("*.dcm")
    image = read_image(path)
    assert image.shape == (3, 1955, 1841)
    lung, spine = image[0, 400:600, 500:700].mean(), image[0, 400:600, 880:960].mean()
    assert lung + 0.2 < spine
