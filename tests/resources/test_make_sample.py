"""The script that made the sample, on small synthetic templates."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

SCRIPT = Path(__file__).parents[2] / "scripts" / "make_sample.py"


@pytest.fixture(scope="module")
def make_sample():
    specification = importlib.util.spec_from_file_location("make_sample", SCRIPT)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def template(array: np.ndarray) -> sitk.Image:
    image = sitk.GetImageFromArray(array.astype(np.uint8))
    image.SetOrigin((9.0, 7.0, -5.0))
    image.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
    return image


@pytest.fixture
def tissues() -> dict[str, np.ndarray]:
    """A 12 x 12 x 12 brain: grey in its lower half, white above, its last slices neither."""
    t1, grey, white = np.zeros((3, 20, 20, 20))
    t1[4:16, 4:16, 4:16] = 100
    grey[4:10, 4:16, 4:16] = 255
    white[10:14, 4:16, 4:16] = 255
    return {"t1": t1, "grey": grey, "white": white}


def reduced(make_sample, tissues, **options):
    images = {name: template(array) for name, array in tissues.items()}
    return make_sample.reduce_template(**images, **options)


def test_tissues_become_labels(make_sample, tissues):
    _, labels = reduced(make_sample, tissues, margin=0)
    array = sitk.GetArrayFromImage(labels)
    assert array.shape == (6, 6, 6)
    assert [set(np.unique(plane)) for plane in array] == [{1}] * 3 + [{2}] * 2 + [{3}]


def test_the_margin_is_background_even_beyond_the_template(make_sample, tissues):
    scan, labels = reduced(make_sample, tissues, margin=5)
    array = sitk.GetArrayFromImage(labels)
    assert array.shape == (16, 16, 16)
    assert np.count_nonzero(array) == 6**3
    assert np.count_nonzero(sitk.GetArrayFromImage(scan)) == 6**3


def test_every_block_is_the_mean_at_the_place_of_its_voxels(make_sample, tissues):
    tissues["t1"][6, 6, 6] = 180
    scan, labels = reduced(make_sample, tissues)
    assert scan.GetSpacing() == (2.0, 2.0, 2.0)
    assert scan.GetOrigin() == labels.GetOrigin()
    source = template(tissues["t1"])
    centre = np.mean([source.TransformIndexToPhysicalPoint((k, k, k)) for k in (6, 7)], axis=0)
    index = scan.TransformPhysicalPointToIndex(centre.tolist())
    np.testing.assert_allclose(scan.TransformIndexToPhysicalPoint(index), centre)
    assert scan.GetPixel(index) == 110


def test_half_empty_blocks_count_as_brain(make_sample, tissues):
    half, quarter = dict(tissues), dict(tissues)
    half["t1"] = tissues["t1"].copy()
    half["t1"][15] = 0
    quarter["t1"] = half["t1"].copy()
    quarter["t1"][14, :, 4:16:2] = 0
    assert reduced(make_sample, half, margin=0)[1].GetSize()[2] == 6
    assert reduced(make_sample, quarter, margin=0)[1].GetSize()[2] == 5


def test_other_sources_are_refused(make_sample, tmp_path):
    for name, _ in make_sample.SOURCES.values():
        (tmp_path / name).write_bytes(b"another release")
    with pytest.raises(SystemExit, match=r"install nilearn==0\.13\.1"):
        make_sample.read_sources(tmp_path)
