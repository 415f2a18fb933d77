"""Scans as layers, without a window."""

from pathlib import Path

import numpy as np
import pytest
from napari.layers import Image, Labels

from napari_fedsam.imaging.errors import ImagingError
from napari_fedsam.imaging.geometry import Geometry
from napari_fedsam.imaging.readers import read_mask, read_scan
from napari_fedsam.imaging.scan import Scan
from napari_fedsam.imaging.writers import write_mask
from napari_fedsam.widgets.layers import (
    SCAN_KEY,
    image_layer_data,
    labels_layer_data,
    scan_from_image,
    scan_of,
)
from napari_fedsam.widgets.reader import get_reader, read_layers
from napari_fedsam.widgets.sample_data import head_mr, head_mr_with_tissues
from napari_fedsam.widgets.writer import write_labels

OBLIQUE = Geometry(
    (8, 6, 4),
    (0.5, 0.75, 3.0),
    (-12.5, 30.0, 7.25),
    tuple(np.array([[-0.8, 0, 0.6], [0, 1, 0], [-0.6, 0, -0.8]]).ravel()),
)


@pytest.fixture
def oblique() -> Scan:
    pixels = np.random.default_rng(2).integers(-500, 900, OBLIQUE.array_shape).astype(np.int16)
    return Scan(pixels, OBLIQUE, "oblique", Path("oblique.nii"), modality="CT")


def test_layers_have_the_true_proportions(oblique):
    data, options, kind = image_layer_data(oblique)
    layer = Image(data, **options)
    assert kind == "image"
    assert layer.scale == pytest.approx(oblique.orientation.display_spacing)
    assert [str(unit) for unit in layer.units] == ["millimeter"] * 3
    assert layer.axis_labels == oblique.orientation.axis_labels
    assert tuple(layer.contrast_limits) == (-160, 240)
    assert scan_of(layer) is oblique


def test_layers_show_acquired_voxels_without_a_copy(oblique):
    data, _, _ = image_layer_data(oblique)
    assert np.shares_memory(data, oblique.pixels)
    assert np.array_equal(oblique.orientation.from_display(data), oblique.pixels)


def test_pictures_are_colour_and_in_pixels():
    pixels = np.zeros((1, 5, 7, 3), np.uint8)
    picture = Scan(
        pixels,
        Geometry((7, 5), (1.0, 1.0), (0.0, 0.0), (1.0, 0.0, 0.0, 1.0)),
        "picture",
        Path("picture.png"),
        spacing_known=False,
        is_anatomical=False,
    )
    data, options, _ = image_layer_data(picture)
    layer = Image(data, **options)
    assert layer.rgb
    assert layer.ndim == 3
    assert str(layer.units[0]) == "pixel"


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd"])
def test_labels_of_a_scan_are_written_with_its_geometry(oblique, tmp_path, suffix):
    labels = np.random.default_rng(3).integers(0, 3, oblique.shape).astype(np.uint8)
    data, options, _ = labels_layer_data(labels, oblique, "mask")
    path = tmp_path / f"mask{suffix}"
    layer = Labels(data, **options)
    assert write_labels(str(path), *layer.as_layer_data_tuple()[:2]) == [str(path)]
    assert np.array_equal(read_mask(path, oblique), labels)


def test_labels_without_a_scan_are_not_written(tmp_path):
    layer = Labels(np.zeros((2, 3, 4), np.uint8), name="stray")
    with pytest.raises(ImagingError, match=r"mask\.nii.*'stray' belongs to no scan"):
        write_labels(str(tmp_path / "mask.nii"), *layer.as_layer_data_tuple()[:2])
    assert list(tmp_path.iterdir()) == []


def test_the_reader_takes_scans_only(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("no scan")
    assert get_reader(str(path)) is None
    assert get_reader([]) is None


def test_the_reader_reads_at_once_without_a_window(oblique, tmp_path):
    path = tmp_path / "mask.nii.gz"
    write_mask(np.ones(oblique.shape, np.uint8), oblique, path)
    reader = get_reader(str(path))
    ((data, options, kind),) = reader(str(path))
    assert kind == "image"
    assert data.shape == image_layer_data(oblique)[0].shape
    assert options["metadata"][SCAN_KEY].geometry.matches(oblique.geometry)


def test_reading_something_broken_is_told(tmp_path):
    path = tmp_path / "broken.nii.gz"
    path.write_bytes(b"not an image")
    with pytest.raises(ImagingError, match=r"broken\.nii\.gz"):
        read_layers(str(path))


def test_the_sample_has_an_image_and_its_tissues():
    ((data, options, kind),) = head_mr()
    assert kind == "image"
    assert options["metadata"][SCAN_KEY].modality == "MR"
    image, labels = head_mr_with_tissues()
    assert labels[2] == "labels"
    assert labels[0].shape == image[0].shape == data.shape
    assert set(np.unique(labels[0])) == {0, 1, 2, 3}
    # The tissues lie on the brain.
    assert image[0][labels[0] > 0].mean() > 10 * image[0][labels[0] == 0].mean()


def test_an_image_layer_from_elsewhere_becomes_a_scan():
    pixels = np.random.default_rng(0).random((4, 5, 6))
    layer = Image(pixels, scale=(3, 1, 2), units=("mm", "mm", "mm"), name="other")
    scan = scan_from_image(layer)
    assert scan.spacing == (3.0, 1.0, 2.0)
    assert scan.spacing_known
    assert not scan.is_anatomical
    assert np.allclose(scan.pixels, pixels)
    assert scan_from_image(layer) is scan


def test_micrometres_become_millimetres():
    layer = Image(np.zeros((5, 6)), scale=(500, 250), units=("um", "um"))
    assert scan_from_image(layer).spacing[1:] == pytest.approx((0.5, 0.25))


def test_colour_layers_lose_their_alpha():
    layer = Image(np.full((5, 6, 4), 255, np.uint8), rgb=True)
    scan = scan_from_image(layer)
    assert scan.is_colour
    assert scan.shape == (1, 5, 6)
    assert not scan.spacing_known


def test_layers_of_four_dimensions_are_refused():
    with pytest.raises(ImagingError, match="not a plain 2-D or 3-D image"):
        scan_from_image(Image(np.zeros((2, 3, 4, 5)), name="movie"))


def test_a_scan_opened_twice_is_two_scans(oblique, tmp_path):
    path = tmp_path / "a.nrrd"
    write_mask(np.ones(oblique.shape, np.uint8), oblique, path)
    assert read_scan(path) is not read_scan(path)
