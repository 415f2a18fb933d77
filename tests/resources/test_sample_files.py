"""The embedded sample as it lies in the package: geometry, labels, licence, size, provenance."""

import hashlib
import re
from importlib.resources import as_file, files

import numpy as np
import pytest
import SimpleITK as sitk

SAMPLES = files("napari_fedsam.resources") / "samples"
SCAN = "icbm152_t1_2mm.nii.gz"
LABELS = "icbm152_labels_2mm.nii.gz"


def read(name: str) -> sitk.Image:
    with as_file(SAMPLES / name) as path:
        return sitk.ReadImage(str(path))


@pytest.fixture(scope="module")
def scan() -> sitk.Image:
    return read(SCAN)


@pytest.fixture(scope="module")
def labels() -> sitk.Image:
    return read(LABELS)


def test_scan_and_labels_share_a_2_mm_grid(scan, labels):
    assert scan.GetSpacing() == (2.0, 2.0, 2.0)
    for property_of in (sitk.Image.GetSize, sitk.Image.GetOrigin, sitk.Image.GetDirection):
        assert property_of(scan) == property_of(labels)


def test_the_origin_of_the_template_is_the_anterior_commissure(scan):
    """World (0, 0, 0) of the template lies mid-sagittally inside the brain."""
    assert scan.GetPixel(scan.TransformPhysicalPointToIndex((0.0, 0.0, 0.0))) > 0
    left = scan.TransformPhysicalPointToIndex((60.0, 20.0, 10.0))
    right = scan.TransformPhysicalPointToIndex((-60.0, 20.0, 10.0))
    assert scan.GetPixel(left) > 0
    assert scan.GetPixel(right) > 0


def test_background_is_zero_and_surrounds_the_brain(scan, labels):
    brain = sitk.GetArrayFromImage(labels) > 0
    pixels = sitk.GetArrayFromImage(scan)
    assert pixels.dtype == np.uint8
    assert (pixels[brain] > 0).all()
    for axis in range(3):
        assert not brain.take([0, 1, 2, 3, -4, -3, -2, -1], axis=axis).any()


def test_tissue_volumes_are_those_of_a_brain(labels):
    litres = np.bincount(sitk.GetArrayFromImage(labels).ravel()) * 8e-6
    _, grey, white, rest = litres
    assert 0.9 < grey < 1.3
    assert 0.5 < white < 0.8
    assert rest < 0.3


def test_white_matter_is_brighter_than_grey_matter(scan, labels):
    pixels, tissue = (sitk.GetArrayFromImage(image) for image in (scan, labels))
    grey, white, rest = (pixels[tissue == value].mean() for value in (1, 2, 3))
    assert white > 1.2 * grey
    assert grey > rest


def test_the_template_licence_lies_beside_the_files():
    notice = " ".join((SAMPLES / "ICBM152-LICENSE.txt").read_text(encoding="utf-8").split())
    assert "Copyright (C) 1993-2004 Louis Collins, McConnell Brain Imaging Centre" in notice
    assert "provided that the above copyright notice appear in all copies" in notice
    assert "The nilearn developers" in notice


def test_the_readme_lists_the_checksums_and_the_citations():
    readme = (SAMPLES / "README.md").read_text(encoding="utf-8")
    listed = dict(re.findall(r"\| `(\S+\.nii\.gz)` .*`([0-9a-f]{64})` \|", readme))
    found = {
        name: hashlib.sha256((SAMPLES / name).read_bytes()).hexdigest() for name in (SCAN, LABELS)
    }
    assert listed == found
    assert "10.1016/j.neuroimage.2010.07.033" in readme
    assert "10.1016/S1053-8119(09)70884-5" in readme


def test_the_samples_are_small():
    assert sum(len(entry.read_bytes()) for entry in SAMPLES.iterdir()) < 3_000_000
