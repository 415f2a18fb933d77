import numpy as np
import pytest
from PIL import Image

from napari_fedsam.cases.thumbnails import render_thumbnail


def render(image, mask, spacing=None, window=(0.0, 100.0)):
    return render_thumbnail(image, mask, window=window, spacing=spacing, color="#ff8000")


@pytest.mark.parametrize(
    ("shape", "spacing", "expected"),
    [
        ((512, 512), None, (96, 96)),
        ((300, 600), (1.0, 1.0), (48, 96)),
        ((26, 166), (5.0, 0.8), (94, 96)),
        ((20, 10), None, (20, 10)),
        ((1, 5000), None, (1, 96)),
        ((1, 1), (3.0, 0.1), (30, 1)),
    ],
)
def test_it_is_small_and_undistorted(shape, spacing, expected) -> None:
    picture = render(np.zeros(shape), np.zeros(shape, np.bool_), spacing)
    assert picture.shape == (*expected, 3)
    assert picture.dtype == np.uint8


def test_values_are_shown_through_the_window() -> None:
    image = np.array([[-50, 0], [50, 200]], np.int16).repeat(40, 0).repeat(40, 1)
    picture = render(image, np.zeros(image.shape, np.bool_))
    assert picture[20, 20].tolist() == [0, 0, 0]
    assert picture[60, 20].tolist() == [128, 128, 128]
    assert picture[60, 60].tolist() == [255, 255, 255]


def test_colour_is_shown_as_it_is() -> None:
    image = np.zeros((30, 30, 3), np.uint8)
    image[..., 1] = 77
    picture = render(image, np.zeros((30, 30), np.bool_))
    assert (picture == [0, 77, 0]).all()


def test_the_outline_and_nothing_inside_has_the_structures_colour() -> None:
    mask = np.zeros((40, 40), np.bool_)
    mask[10:30, 5:35] = True
    picture = render(np.zeros((40, 40)), mask)
    coloured = (picture == [255, 128, 0]).all(axis=2)
    expected = mask.copy()
    expected[11:29, 6:34] = False
    np.testing.assert_array_equal(coloured, expected)


def test_a_structure_of_one_pixel_stays_visible_in_a_large_slice() -> None:
    mask = np.zeros((1000, 1000), np.bool_)
    mask[700, 300] = True
    coloured = (render(np.zeros((1000, 1000)), mask) == [255, 128, 0]).all(axis=2)
    assert coloured.any()


def test_the_png_holds_no_text(store, make_case) -> None:
    path = store.thumbnail_path(store.accept(make_case()).id)
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert picture.info == {}
        assert max(picture.size) <= 96
