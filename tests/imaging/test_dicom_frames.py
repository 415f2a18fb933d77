"""Multi-frame, enhanced and colour DICOM objects."""

from typing import Any

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.pixels import convert_color_space
from pydicom.uid import (
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    EnhancedUSVolumeStorage,
    VLWholeSlideMicroscopyImageStorage,
    generate_uid,
)

from napari_fedsam.imaging.errors import ImagingError
from napari_fedsam.imaging.readers import list_series, read_scan
from napari_fedsam.imaging.window import Window, default_window

RANDOM = np.random.default_rng(4)
FRAMES = RANDOM.integers(0, 4096, (4, 12, 16)).astype(np.uint16)
COLOUR = RANDOM.integers(0, 256, (12, 16, 3), dtype=np.uint8)
FALLING = [(1.0, 2.0, 12.0 - 3 * i) for i in range(4)]


def region(across: float, down: float, **changes: Any) -> Dataset:
    dataset = Dataset()
    described = {
        "RegionSpatialFormat": 1,
        "PhysicalUnitsXDirection": 3,
        "PhysicalUnitsYDirection": 3,
        "PhysicalDeltaX": across,
        "PhysicalDeltaY": down,
    }
    for keyword, value in (described | changes).items():
        setattr(dataset, keyword, value)
    return dataset


def test_enhanced_frames_are_stacked_by_their_own_positions(dicom: Any) -> None:
    scan = read_scan(dicom.enhanced("e.dcm", FRAMES, FALLING))
    assert np.array_equal(scan.pixels, FRAMES[::-1])
    assert scan.geometry.size == (16, 12, 4)
    assert scan.geometry.spacing == (0.5, 0.7, 3.0)
    assert scan.geometry.origin == (1, 2, 3)
    assert scan.is_anatomical
    assert not scan.is_stack_of_frames
    assert scan.name == "MR series"


@pytest.mark.parametrize("order", [[2, 0, 3, 1], [0, 1, 2, 3]])
def test_enhanced_frames_may_come_in_any_order(dicom: Any, order: list[int]) -> None:
    positions = [(0.0, 0.0, 3.0 * i) for i in order]
    scan = read_scan(dicom.enhanced("e.dcm", FRAMES[order], positions))
    assert np.array_equal(scan.pixels, FRAMES)


@pytest.mark.parametrize(
    "sop_class", [EnhancedMRImageStorage, EnhancedCTImageStorage, EnhancedUSVolumeStorage]
)
@pytest.mark.parametrize("rescale", [[(2.0, 5.0)], [(1.0, 0.0), (2.0, 5.0), (0.5, 0.0), (3, -7)]])
@pytest.mark.parametrize("rle", [False, True])
def test_enhanced_frames_are_rescaled_each_by_its_own(
    dicom: Any, sop_class: str, rescale: list[tuple[float, float]], rle: bool
) -> None:
    rising = [(0.0, 0.0, 3.0 * i) for i in range(4)]
    path = dicom.enhanced("e.dcm", FRAMES, rising, rescale=rescale, sop_class=sop_class, rle=rle)
    slopes, intercepts = np.array(rescale * (4 // len(rescale))).T[..., None, None]
    np.testing.assert_allclose(read_scan(path).pixels, FRAMES * slopes + intercepts)


def test_enhanced_frames_at_one_place_are_refused(dicom: Any) -> None:
    path = dicom.enhanced("phases.dcm", FRAMES, [(0, 0, 0), (0, 0, 3), (0, 0, 0), (0, 0, 3)])
    with pytest.raises(ImagingError, match=r"phases\.dcm has several slices at the same place"):
        read_scan(path)


def test_an_enhanced_object_with_a_missing_frame_is_refused(dicom: Any) -> None:
    path = dicom.enhanced("gap.dcm", FRAMES, [(0, 0, z) for z in (0, 3, 9, 12)])
    with pytest.raises(ImagingError, match=r"gap\.dcm has a slice missing between 3\.0 and 9\.0"):
        read_scan(path)


def test_functional_groups_must_fit_the_frames(dicom: Any) -> None:
    path = dicom.enhanced("odd.dcm", FRAMES, FALLING[:3])
    with pytest.raises(ImagingError, match=r"odd\.dcm is a truncated or damaged"):
        read_scan(path)


def test_a_single_enhanced_frame_keeps_its_place_and_thickness(dicom: Any) -> None:
    scan = read_scan(dicom.enhanced("one.dcm", FRAMES[:1], FALLING[:1]))
    assert scan.shape == (1, 12, 16)
    assert scan.geometry.spacing == (0.5, 0.7, 4.0)
    assert scan.geometry.origin == (1, 2, 12)


def test_cine_is_a_stack_of_frames(dicom: Any) -> None:
    scan = read_scan(dicom.picture("cine.dcm", FRAMES))
    assert np.array_equal(scan.pixels, FRAMES)
    assert scan.is_stack_of_frames
    assert not scan.is_anatomical
    assert not scan.spacing_known
    assert scan.orientation.axis_labels == ("frame", "y", "x")
    assert scan.orientation.edge_letters(0).left == ""
    assert scan.slice_axis == 0


def test_colour_cine_is_a_stack_of_colour_frames(dicom: Any) -> None:
    frames = np.stack([COLOUR, COLOUR[::-1], 255 - COLOUR])
    scan = read_scan(dicom.picture("cine.dcm", frames))
    assert np.array_equal(scan.pixels, frames)
    assert default_window(scan) == Window(0, 255)


def test_clips_of_one_series_are_scans_of_their_own(dicom: Any) -> None:
    uid = generate_uid()
    dicom.picture("a", FRAMES, SeriesInstanceUID=uid)
    dicom.picture("b", FRAMES[:2], SeriesInstanceUID=uid)
    listed = list_series(dicom.folder)
    assert [s.n_slices for s in listed] == [4, 2]
    assert read_scan(dicom.folder, series=listed[1].uid).shape == (2, 12, 16)


def test_calibrated_ultrasound_has_a_spacing(dicom: Any) -> None:
    path = dicom.picture("us.dcm", FRAMES, SequenceOfUltrasoundRegions=[region(0.02, 0.03)])
    scan = read_scan(path)
    assert scan.spacing_known
    assert scan.spacing == pytest.approx((1.0, 0.3, 0.2))
    assert scan.orientation.display_spacing == scan.spacing


@pytest.mark.parametrize(
    "regions",
    [
        [region(0.02, 0.03), region(0.05, 0.05)],
        [region(0.02, 0.03, PhysicalUnitsXDirection=4)],
        [region(0.02, 0.03, RegionSpatialFormat=3)],
    ],
)
def test_contradicting_calibration_is_no_spacing(dicom: Any, regions: list[Dataset]) -> None:
    scan = read_scan(dicom.picture("us.dcm", FRAMES, SequenceOfUltrasoundRegions=regions))
    assert not scan.spacing_known


def test_the_aspect_of_pixels_is_kept_without_a_spacing(dicom: Any) -> None:
    scan = read_scan(dicom.picture("us.dcm", FRAMES[0], PixelAspectRatio=[6, 5]))
    assert not scan.spacing_known
    assert scan.geometry.spacing == (1.0, 1.2)


def test_rgb_is_read_in_either_planar_configuration(dicom: Any) -> None:
    assert np.array_equal(read_scan(dicom.picture("a.dcm", COLOUR)).pixels[0], COLOUR)
    planes = COLOUR.transpose(2, 0, 1).tobytes()
    path = dicom.picture("b.dcm", COLOUR, PlanarConfiguration=1, PixelData=planes)
    assert np.array_equal(read_scan(path).pixels[0], COLOUR)


@pytest.mark.parametrize("rle", [False, True])
def test_ybr_full_becomes_rgb(dicom: Any, rle: bool) -> None:
    stored = convert_color_space(COLOUR, "RGB", "YBR_FULL")
    path = dicom.picture("y.dcm", stored, PhotometricInterpretation="YBR_FULL", rle=rle)
    expected = convert_color_space(stored, "YBR_FULL", "RGB")
    np.testing.assert_allclose(read_scan(path).pixels[0].astype(int), expected, atol=1)


def test_ybr_full_422_becomes_rgb(dicom: Any) -> None:
    stored = convert_color_space(COLOUR, "RGB", "YBR_FULL")
    stored[:, 1::2, 1:] = stored[:, ::2, 1:]
    pairs = [stored[:, ::2, 0], stored[:, 1::2, 0], stored[:, ::2, 1], stored[:, ::2, 2]]
    path = dicom.picture(
        "y.dcm",
        stored,
        PhotometricInterpretation="YBR_FULL_422",
        PixelData=np.stack(pairs, -1).tobytes(),
    )
    expected = convert_color_space(stored, "YBR_FULL", "RGB")
    np.testing.assert_allclose(read_scan(path).pixels[0].astype(int), expected, atol=1)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {"quality": 100, "subsampling": 1}),
        ("JPEG2000", {"mct": 1, "irreversible": False}),
    ],
)
def test_compressed_colour_becomes_rgb(dicom: Any, kind: str, options: dict[str, Any]) -> None:
    flag = np.zeros((16, 16, 3), np.uint8)
    flag[:8], flag[8:] = (200, 50, 30), (20, 60, 220)
    pixels = read_scan(dicom.jpeg("c.dcm", flag, kind, **options)).pixels[0]
    np.testing.assert_allclose(pixels.astype(int), flag, atol=2)


def test_palette_colour_becomes_rgb(dicom: Any) -> None:
    table = RANDOM.integers(0, 256, (3, 256)).astype(np.uint16)
    colours = {}
    for name, entries in zip(("Red", "Green", "Blue"), table, strict=True):
        colours[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        colours[f"{name}PaletteColorLookupTableData"] = (entries << 8).tobytes()
    indices = COLOUR[..., 0]
    path = dicom.picture("p.dcm", indices, PhotometricInterpretation="PALETTE COLOR", **colours)
    assert np.array_equal(read_scan(path).pixels[0], table.T[indices])


def test_sixteen_bit_colour_becomes_eight_bit(dicom: Any) -> None:
    deep = COLOUR.astype(np.uint16) << 4
    path = dicom.picture("deep.dcm", deep, BitsStored=12, HighBit=11)
    assert np.array_equal(read_scan(path).pixels[0], COLOUR)


def test_gray_and_colour_slices_are_not_mixed(dicom: Any) -> None:
    uid = generate_uid()
    dicom.slice("a", FRAMES[0], SeriesInstanceUID=uid)
    dicom.slice(
        "b",
        COLOUR,
        position=(0, 0, 2),
        SeriesInstanceUID=uid,
        PhotometricInterpretation="RGB",
        RescaleIntercept=None,
        RescaleSlope=None,
    )
    with pytest.raises(ImagingError, match="study mixes gray and colour slices"):
        read_scan(dicom.folder)


def test_whole_slide_images_are_refused(dicom: Any) -> None:
    path = dicom.write(
        "tiles.dcm",
        COLOUR,
        VLWholeSlideMicroscopyImageStorage,
        Modality="SM",
        PhotometricInterpretation="RGB",
    )
    with pytest.raises(ImagingError, match=r"tiles\.dcm is a whole-slide image"):
        read_scan(path)


def test_an_unknown_compression_is_told_by_name(dicom: Any, capfd: Any) -> None:
    path = dicom.write(
        "film.dcm",
        COLOUR,
        "1.2.840.10008.5.1.4.1.1.77.1.1.1",
        syntax="1.2.840.10008.1.2.4.102",
        Modality="ES",
        PhotometricInterpretation="YBR_PARTIAL_420",
        PixelData=b"\xfe\xff\x00\xe0\0\0\0\0\xfe\xff\x00\xe0\x04\0\0\0abcd\xfe\xff\xdd\xe0\0\0\0\0",
    )
    with pytest.raises(ImagingError, match=r"film\.dcm cannot be decoded \(MPEG-4"):
        read_scan(path)
    assert capfd.readouterr().err == ""
