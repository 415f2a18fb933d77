from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from napari_fedsam.imaging.errors import ImagingError
from napari_fedsam.imaging.readers import read_scan

GRAY = np.arange(20, dtype=np.uint8).reshape(4, 5) * 12
COLOUR = np.random.default_rng(1).integers(0, 256, (4, 5, 3), dtype=np.uint8)


def save(values: np.ndarray, path: Path, **options: Any) -> Path:
    Image.fromarray(values).save(path, **options)
    return path


@pytest.mark.parametrize("suffix", ["png", "tif", "TIFF", "bmp"])
def test_reads_gray_and_colour(tmp_path: Path, suffix: str) -> None:
    gray = read_scan(save(GRAY, tmp_path / f"gray.{suffix}"))
    assert np.array_equal(gray.pixels, GRAY[None])
    colour = read_scan(save(COLOUR, tmp_path / f"colour.{suffix}"))
    assert np.array_equal(colour.pixels, COLOUR[None])
    assert colour.is_picture
    assert not colour.spacing_known
    assert not colour.is_anatomical
    assert colour.unit == "pixel"
    assert colour.geometry.size == (5, 4)
    assert colour.name == "colour"


def test_reads_jpeg(tmp_path: Path) -> None:
    smooth = np.full((16, 16, 3), (200, 50, 30), np.uint8)
    scan = read_scan(save(smooth, tmp_path / "a.JPG", quality=95))
    np.testing.assert_allclose(scan.pixels[0].astype(int), smooth, atol=3)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_keeps_sixteen_bit_gray(tmp_path: Path, suffix: str) -> None:
    values = GRAY.astype(np.uint16) * 250
    scan = read_scan(save(values, tmp_path / f"deep.{suffix}"))
    assert scan.pixels.dtype == np.uint16
    assert np.array_equal(scan.pixels[0], values)


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_keeps_tiff_numbers(tmp_path: Path, dtype: type) -> None:
    values = GRAY.astype(dtype) - 3
    scan = read_scan(save(values, tmp_path / "n.tif"))
    assert scan.pixels.dtype == dtype
    assert np.array_equal(scan.pixels[0], values)


def test_drops_alpha(tmp_path: Path) -> None:
    alpha = np.full((4, 5, 1), 128, np.uint8)
    rgba = read_scan(save(np.concatenate([COLOUR, alpha], 2), tmp_path / "rgba.png"))
    assert np.array_equal(rgba.pixels[0], COLOUR)
    path = tmp_path / "la.png"
    Image.merge("LA", [Image.fromarray(GRAY), Image.fromarray(alpha[..., 0])]).save(path)
    assert np.array_equal(read_scan(path).pixels[0], GRAY)


def test_black_and_white_is_0_and_255(tmp_path: Path) -> None:
    path = tmp_path / "bw.png"
    Image.fromarray(GRAY > 100).save(path)
    assert np.array_equal(read_scan(path).pixels[0], np.where(GRAY > 100, 255, 0))


@pytest.mark.parametrize("gray_palette", [False, True])
def test_a_palette_becomes_its_colours(tmp_path: Path, gray_palette: bool) -> None:
    table = np.random.default_rng(2).integers(0, 256, (256, 3), dtype=np.uint8)
    if gray_palette:
        table[:] = table[:, :1]
    image = Image.fromarray(GRAY, "L").convert("L")
    image.putpalette(table.ravel().tolist())
    path = tmp_path / "p.png"
    image.save(path)
    expected = table[GRAY][..., 0] if gray_palette else table[GRAY]
    assert np.array_equal(read_scan(path).pixels[0], expected)


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    path = tmp_path / "print.jpg"
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(path)
    np.testing.assert_allclose(read_scan(path).pixels[0, 0, 0], (255, 0, 0), atol=4)


@pytest.mark.parametrize(("tag", "turned"), [(3, np.rot90(GRAY, 2)), (6, np.rot90(GRAY, -1))])
def test_applies_the_cameras_rotation(tmp_path: Path, tag: int, turned: np.ndarray) -> None:
    exif = Image.Exif()
    exif[274] = tag
    scan = read_scan(save(GRAY, tmp_path / "phone.png", exif=exif))
    assert np.array_equal(scan.pixels[0], turned)
    assert scan.geometry.size == turned.shape[::-1]


def test_pages_of_a_tiff_are_a_stack(tmp_path: Path) -> None:
    pages = [Image.fromarray(GRAY + i) for i in range(3)]
    path = tmp_path / "stack.tif"
    pages[0].save(path, save_all=True, append_images=pages[1:])
    scan = read_scan(path)
    assert np.array_equal(scan.pixels, np.stack([GRAY, GRAY + 1, GRAY + 2]))
    assert scan.is_stack_of_frames
    assert scan.orientation.axis_labels == ("frame", "y", "x")
    assert scan.slice_axis == 0


def test_thumbnails_in_a_tiff_are_no_pages(tmp_path: Path) -> None:
    small = Image.fromarray(GRAY[::2, ::2])
    small.encoderinfo = {"tiffinfo": {254: 1}}
    path = tmp_path / "pyramid.tif"
    Image.fromarray(GRAY).save(path, save_all=True, append_images=[small])
    with Image.open(path) as image:
        assert image.n_frames == 2
    assert read_scan(path).pixels.shape == (1, 4, 5)


def test_refuses_pages_of_different_sizes(tmp_path: Path) -> None:
    path = tmp_path / "mixed.tif"
    Image.fromarray(GRAY).save(path, save_all=True, append_images=[Image.fromarray(GRAY[:2])])
    with pytest.raises(ImagingError, match=r"mixed\.tif has pages of different sizes"):
        read_scan(path)


def test_refuses_a_picture_that_would_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(GRAY, tmp_path / "huge.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5)
    with pytest.raises(ImagingError, match=r"huge\.png is too large"):
        read_scan(path)
