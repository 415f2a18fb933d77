import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from napari_fedsam.imaging.geometry import Geometry

TILTED = tuple(Rotation.from_euler("xyz", (20, -35, 50), degrees=True).as_matrix().ravel())
OBLIQUE = Geometry((4, 5, 6), (0.5, 0.7, 3.0), (-12.5, 40.25, 7.125), TILTED)


def test_goes_to_an_image_and_back_unchanged() -> None:
    image = sitk.Image(OBLIQUE.size, sitk.sitkUInt8)
    OBLIQUE.stamp(image)
    assert Geometry.from_image(image) == OBLIQUE


def test_agrees_with_itk_on_where_an_index_lies() -> None:
    image = sitk.Image(OBLIQUE.size, sitk.sitkUInt8)
    OBLIQUE.stamp(image)
    expected = image.TransformIndexToPhysicalPoint((3, 1, 5))
    np.testing.assert_allclose(OBLIQUE.index_to_world((3, 1, 5)), expected, atol=1e-9)


@given(st.lists(st.tuples(*[st.floats(-50, 50)] * 3), min_size=1, max_size=5))
def test_world_and_index_are_inverse(points: list[tuple[float, float, float]]) -> None:
    back = OBLIQUE.world_to_index(OBLIQUE.index_to_world(points))
    np.testing.assert_allclose(back, points, atol=1e-9)


def test_refuses_to_stamp_another_size() -> None:
    with pytest.raises(ValueError, match="size"):
        OBLIQUE.stamp(sitk.Image(4, 5, 7, sitk.sitkUInt8))


def test_identity_is_a_unit_grid_and_knows_its_array_shape() -> None:
    picture = Geometry.identity((7, 5))
    assert picture.spacing == (1.0, 1.0)
    assert picture.dimension == 2
    assert picture.array_shape == (1, 5, 7)
    assert OBLIQUE.array_shape == (6, 5, 4)


@pytest.mark.parametrize(
    ("size", "spacing", "origin", "direction"),
    [
        ((4,), (1.0,), (0.0,), (1.0,)),
        ((4, 5), (1.0,), (0.0, 0.0), (1.0, 0.0, 0.0, 1.0)),
        ((4, 5), (1.0, 0.0), (0.0, 0.0), (1.0, 0.0, 0.0, 1.0)),
        ((4, 0), (1.0, 1.0), (0.0, 0.0), (1.0, 0.0, 0.0, 1.0)),
        ((4, 5), (1.0, 1.0), (0.0, float("nan")), (1.0, 0.0, 0.0, 1.0)),
        ((4, 5), (1.0, 1.0), (0.0, 0.0), (1.0, 0.0, 1.0, 0.0)),
    ],
)
def test_refuses_nonsense(
    size: tuple[int, ...],
    spacing: tuple[float, ...],
    origin: tuple[float, ...],
    direction: tuple[float, ...],
) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - each refusal has a wording of its own
        Geometry(size, spacing, origin, direction)


@pytest.mark.parametrize(
    ("shift", "same"), [(0.0, True), (9e-6, True), (1.2e-5, False), (0.1, False)]
)
def test_matches_within_a_hundred_thousandth_of_a_millimetre(shift: float, same: bool) -> None:
    moved = Geometry(
        OBLIQUE.size, OBLIQUE.spacing, (OBLIQUE.origin[0] + shift, *OBLIQUE.origin[1:]), TILTED
    )
    assert OBLIQUE.matches(moved) is same
    wider = Geometry(
        OBLIQUE.size, (OBLIQUE.spacing[0] + shift, *OBLIQUE.spacing[1:]), OBLIQUE.origin, TILTED
    )
    assert OBLIQUE.matches(wider) is same


@pytest.mark.parametrize(("angle", "same"), [(5e-7, True), (5e-6, False)])
def test_matches_directions_within_a_millionth(angle: float, same: bool) -> None:
    turned = Rotation.from_rotvec([angle, angle, 0]).as_matrix() @ OBLIQUE.matrix
    other = Geometry(OBLIQUE.size, OBLIQUE.spacing, OBLIQUE.origin, tuple(turned.ravel()))
    assert OBLIQUE.matches(other) is same


def test_matches_needs_the_same_size() -> None:
    assert not Geometry.identity((4, 5, 6)).matches(Geometry.identity((4, 5, 7)))


def test_single_precision_allows_what_a_32_bit_header_rounds() -> None:
    far = Geometry(
        (1, 1, 1), (1.0, 1.0, 1.0), (-1024.3, 0.0, 0.0), Geometry.identity((1, 1, 1)).direction
    )
    rounded = Geometry(
        (1, 1, 1), (1.0, 1.0, 1.0), (float(np.float32(-1024.3)), 0.0, 0.0), far.direction
    )
    assert not far.matches(rounded)
    assert far.matches(rounded, single_precision=True)


@given(
    axes=st.permutations([0, 1, 2]),
    flipped=st.tuples(st.booleans(), st.booleans(), st.booleans()),
)
def test_reindexing_describes_the_same_voxels_and_is_found_again(
    axes: list[int], flipped: tuple[bool, bool, bool]
) -> None:
    turned = OBLIQUE.reindexed(tuple(axes), flipped)
    new = np.array([1, 2, 3]) % np.array(turned.size)
    old = np.empty(3)
    for i, axis in enumerate(axes):
        old[axis] = turned.size[i] - 1 - new[i] if flipped[i] else new[i]
    np.testing.assert_allclose(turned.index_to_world(new), OBLIQUE.index_to_world(old), atol=1e-9)
    found = OBLIQUE.reindexing_to(turned, length=1e-5, direction=1e-6)
    assert found == (tuple(axes), flipped)


def test_no_reindexing_leads_to_another_place() -> None:
    moved = Geometry(OBLIQUE.size, OBLIQUE.spacing, (0.0, 0.0, 0.0), TILTED)
    assert OBLIQUE.reindexing_to(moved, length=1e-3, direction=1e-4) is None
    flat = Geometry.identity((4, 5))
    assert OBLIQUE.reindexing_to(flat, length=1e-3, direction=1e-4) is None
