"""Bad input gets one clear sentence that names the file, and nothing on the terminal."""

import gzip
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from napari_fedsam.errors import FedSamError
from napari_fedsam.imaging.errors import ImagingError
from napari_fedsam.imaging.readers import is_supported, list_series, read_scan

NOISE = np.random.default_rng(0).integers(0, 256, (7, 60, 50), dtype=np.uint8)
VOLUMES = ["nii", "nii.gz", "nrrd", "mha"]
PICTURES = ["png", "jpg", "tif", "bmp"]


def save_volume(path: Path, *, compress: bool = False) -> Path:
    sitk.WriteImage(sitk.GetImageFromArray(NOISE), str(path), compress)
    return path


def save_picture(path: Path) -> Path:
    pages = [Image.fromarray(page) for page in NOISE]
    extra = {"save_all": True, "append_images": pages[1:]} if path.suffix == ".tif" else {}
    pages[0].save(path, **extra)
    return path


def cut(path: Path, part: float) -> Path:
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    return path


def the_sentence(path: Path, capfd: Any) -> str:
    """Read `path`, which must fail, and return the message after checking its form."""
    capfd.readouterr()
    with pytest.raises(ImagingError) as caught:
        read_scan(path)
    message = str(caught.value)
    assert path.name in message
    assert "\n" not in message
    assert message.endswith(".")
    assert str(path.parent) not in message
    assert isinstance(caught.value, FedSamError)
    printed = capfd.readouterr()
    assert printed.err == ""
    assert printed.out == ""
    return message


@pytest.mark.parametrize("suffix", [*VOLUMES, "nhdr", "mhd", *PICTURES, "dcm"])
@pytest.mark.parametrize("content", [b"", b"hello world" * 99, bytes(2000)])
def test_not_an_image(tmp_path: Path, capfd: Any, suffix: str, content: bytes) -> None:
    path = tmp_path / f"notes.{suffix}"
    path.write_bytes(content)
    the_sentence(path, capfd)


@pytest.mark.parametrize("suffix", VOLUMES)
@pytest.mark.parametrize("part", [0.98, 0.5, 0.05])
@pytest.mark.parametrize("compress", [False, True])
def test_a_truncated_volume(
    tmp_path: Path, capfd: Any, suffix: str, part: float, compress: bool
) -> None:
    path = cut(save_volume(tmp_path / f"cut.{suffix}", compress=compress), part)
    assert "copy" in the_sentence(path, capfd)


@pytest.mark.parametrize("suffix", PICTURES)
@pytest.mark.parametrize("part", [0.9, 0.5, 0.05])
def test_a_truncated_picture(tmp_path: Path, capfd: Any, suffix: str, part: float) -> None:
    the_sentence(cut(save_picture(tmp_path / f"cut.{suffix}"), part), capfd)


@pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
def test_nifti_2(tmp_path: Path, capfd: Any, suffix: str) -> None:
    header = (540).to_bytes(4, "little") + b"n+2\0\r\n\x1a\n" + bytes(540)
    path = tmp_path / f"new.{suffix}"
    path.write_bytes(gzip.compress(header) if suffix == "nii.gz" else header)
    assert "NIfTI-2" in the_sentence(path, capfd)


@pytest.mark.parametrize("order", ["little", "big"])
def test_a_truncated_nifti_of_either_byte_order(tmp_path: Path, capfd: Any, order: Any) -> None:
    content = bytearray(save_volume(tmp_path / "a.nii").read_bytes()[:9999])
    if order == "big":
        for offset, width, count in ((0, 4, 1), (40, 2, 8), (70, 2, 2), (76, 4, 9)):
            for start in range(offset, offset + width * count, width):
                content[start : start + width] = content[start : start + width][::-1]
    path = tmp_path / "cut.nii"
    path.write_bytes(content)
    assert "truncated" in the_sentence(path, capfd)


def test_a_damaged_compressed_nifti(tmp_path: Path, capfd: Any) -> None:
    path = save_volume(tmp_path / "rot.nii.gz")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    assert "damaged" in the_sentence(path, capfd)


def test_a_compressed_nifti_in_several_gzip_members_is_complete(tmp_path: Path) -> None:
    plain = save_volume(tmp_path / "a.nii").read_bytes()
    path = tmp_path / "b.nii.gz"
    path.write_bytes(gzip.compress(plain[:9999]) + gzip.compress(plain[9999:]))
    assert np.array_equal(read_scan(path).pixels, NOISE)


@pytest.mark.parametrize(("header", "data"), [("mhd", "raw"), ("nhdr", "raw")])
def test_a_header_without_its_voxels(tmp_path: Path, capfd: Any, header: str, data: str) -> None:
    path = save_volume(tmp_path / f"alone.{header}")
    (tmp_path / f"alone.{data}").unlink()
    the_sentence(path, capfd)


def test_a_header_with_cut_off_voxels(tmp_path: Path, capfd: Any) -> None:
    path = save_volume(tmp_path / "cut.mhd")
    cut(tmp_path / "cut.raw", 0.5)
    assert "truncated" in the_sentence(path, capfd)


@pytest.mark.parametrize("name", ["gone.nii.gz", "gone.png", "gone.dcm", "gone"])
def test_a_path_that_does_not_exist(tmp_path: Path, capfd: Any, name: str) -> None:
    assert "does not exist" in the_sentence(tmp_path / name, capfd)


@pytest.mark.parametrize("name", ["table.csv", "report.pdf", "no_suffix"])
def test_an_unknown_kind_of_file(tmp_path: Path, capfd: Any, name: str) -> None:
    path = tmp_path / name
    path.write_text("a,b\n" * 99)
    assert "not a known image" in the_sentence(path, capfd)
    assert not is_supported(path)


def test_an_empty_folder(tmp_path: Path, capfd: Any) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    assert "no DICOM images" in the_sentence(folder, capfd)
    assert not is_supported(folder)
    assert list_series(folder) == []


def test_a_folder_without_dicom(tmp_path: Path, capfd: Any) -> None:
    save_volume(tmp_path / "a.nii.gz")
    assert "open an image file directly" in the_sentence(tmp_path, capfd)


def test_listing_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(ImagingError, match="gone"):
        list_series(tmp_path / "gone")


@pytest.mark.parametrize("suffix", ["nii.gz", "nrrd", "mha", "png", "tif", "dcm"])
def test_no_permission(
    tmp_path: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    path = tmp_path / f"locked.{suffix}"
    path.write_bytes(b"what it holds does not matter")
    opened = Path.open

    def refuse(self: Path, *arguments: Any, **options: Any) -> Any:
        if self == path:
            raise PermissionError(13, "Permission denied", str(self))
        return opened(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", refuse)
    assert "permission denied" in the_sentence(path, capfd)


@pytest.mark.skipif(
    sys.platform == "win32" or os.geteuid() == 0, reason="permission bits do not bind this user"
)
@pytest.mark.parametrize("name", ["locked.nii.gz", "locked.png", "locked.dcm", "locked"])
def test_no_permission_by_the_file_mode(tmp_path: Path, capfd: Any, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"x")
    path.chmod(0)
    assert "permission denied" in the_sentence(path, capfd)


def test_a_folder_that_may_not_be_listed(
    tmp_path: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Any) -> Any:
        raise PermissionError(13, "Permission denied", os.fspath(path))

    # Only here: pytest lists the folder when it removes it.
    with monkeypatch.context() as patched:
        patched.setattr(os, "scandir", refuse)
        assert "permission denied" in the_sentence(tmp_path, capfd)
        assert not is_supported(tmp_path)


def test_a_broken_network_share(
    tmp_path: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_volume(tmp_path / "far.nrrd")

    def fail(self: Path, *arguments: Any, **options: Any) -> Any:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "open", fail)
    assert "Input/output error" in the_sentence(path, capfd)


def test_itk_is_as_talkative_afterwards_as_before(tmp_path: Path) -> None:
    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    read_scan(save_volume(tmp_path / "a.mha"))
    assert sitk.ProcessObject.GetGlobalWarningDisplay() == before
