"""Which scans share a physical space, and what is said of those that do not."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from napari_fedsam.imaging.geometry import Geometry
from napari_fedsam.imaging.physical_space import PhysicalSpace
from napari_fedsam.imaging.scan import Scan

TILTED = tuple(Rotation.from_euler("xyz", (20, -35, 50), degrees=True).as_matrix().ravel())
UPRIGHT = tuple(np.eye(3).ravel())


def scan(name, *, origin=(0, 0, 0), direction=UPRIGHT, **more) -> Scan:
    geometry = Geometry((20, 20, 8), (1.0, 1.0, 2.0), origin, direction)
    return Scan(np.zeros((8, 20, 20), np.int16), geometry, name, Path("x"), **more)


def why(first: Scan, second: Scan) -> str:
    return PhysicalSpace.of(first).why_apart(PhysicalSpace.of(second))


def test_one_frame_of_reference_is_one_space_even_where_the_volumes_do_not_meet():
    one = scan("t1", frame_of_reference="1.2.3")
    other = scan("t2", frame_of_reference="1.2.3", origin=(500, 0, 0), direction=TILTED)
    assert why(one, other) == ""
    assert PhysicalSpace.of(one).names_frame_with(PhysicalSpace.of(other))


def test_two_frames_of_reference_are_two_spaces():
    one, other = scan("ct", frame_of_reference="1.2.3"), scan("mr", frame_of_reference="1.2.4")
    assert why(other, one) == (
        "mr is not linked: its DICOM frame of reference is not that of ct; register one to the "
        "other first."
    )


@pytest.mark.parametrize("frame", ["", "1.2.3"])
def test_where_one_names_no_frame_the_coordinates_count(frame):
    dicom = scan("ct", frame_of_reference=frame)
    assert why(scan("t1", direction=TILTED), dicom) == ""
    far = scan("far", origin=(0, 0, 16.1))
    assert why(far, dicom) == "far is not linked: by its coordinates it does not meet ct."
    assert why(scan("near", origin=(0, 0, 15.9)), dicom) == ""


def test_two_patients_are_never_linked():
    one = scan("one", frame_of_reference="1.2.3", patient_key="P1")
    other = scan("other", frame_of_reference="1.2.3", patient_key="P2")
    assert why(one, other) == "one is not linked: other is of another patient."
    assert why(one, replace(other, patient_key=None)) == ""


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"is_anatomical": False}, "its file does not say where it lies in the patient"),
        ({"spacing_known": False}, "its file does not say where it lies in the patient"),
        (
            {"is_stack_of_frames": True, "is_anatomical": False},
            "it is a series of frames, which has no place in the patient",
        ),
    ],
)
def test_what_has_no_place_in_the_patient_is_not_linked(options, words):
    odd, placed = scan("odd", **options), scan("t1")
    for pair in ((odd, placed), (placed, odd), (odd, odd)):
        assert why(*pair) == f"odd is not linked: {words}."


def test_a_picture_is_not_linked():
    pixels = np.zeros((1, 5, 7), np.uint8)
    picture = Scan(pixels, Geometry.identity((7, 5)), "photo", Path("x"), is_anatomical=False)
    assert why(picture, scan("t1")) == (
        "photo is not linked: it is a picture, which has no place in the patient."
    )


def test_neither_patient_nor_frame_is_shown():
    space = PhysicalSpace.of(scan("t1", frame_of_reference="1.2.3", patient_key="P1"))
    assert "P1" not in repr(space)
    assert "1.2.3" not in repr(space)
