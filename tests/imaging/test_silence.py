import logging
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from pydicom import config

from napari_fedsam.imaging.readers import list_series, read_scan
from napari_fedsam.imaging.silence import silent_itk, silent_pydicom


def test_itk_is_silent_in_overlapping_blocks_and_restored_after_the_last() -> None:
    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    inside, done = threading.Event(), threading.Event()

    def other_thread() -> None:
        with silent_itk():
            inside.set()
            done.wait()

    thread = threading.Thread(target=other_thread)
    with silent_itk():
        thread.start()
        inside.wait()
    assert not sitk.ProcessObject.GetGlobalWarningDisplay()
    done.set()
    thread.join()
    assert sitk.ProcessObject.GetGlobalWarningDisplay() == before


def test_pydicom_is_silent_inside_and_as_before_outside(
    caplog: pytest.LogCaptureFixture,
) -> None:
    mode = config.settings.reading_validation_mode
    logger = logging.getLogger("pydicom")
    filters = list(warnings.filters)
    with silent_pydicom(), silent_pydicom():
        logger.warning("planted")
        warnings.warn("planted", stacklevel=1)
    assert "planted" not in caplog.text
    assert config.settings.reading_validation_mode == mode
    assert warnings.filters == filters
    logger.warning("heard again")
    assert "heard again" in caplog.text


@pytest.mark.parametrize(
    "odd",
    [
        {"PatientID": "PLANTED" * 20},
        {"SeriesInstanceUID": "PLANTED.UID"},
        {"SeriesNumber": 2**31 - 1, "StudyInstanceUID": "1.02.PLANTED"},
    ],
)
@pytest.mark.filterwarnings("ignore:(Invalid value|The value length):UserWarning")
def test_header_values_against_the_standard_are_not_quoted_anywhere(
    dicom: Any, caplog: pytest.LogCaptureFixture, capfd: Any, odd: dict[str, Any]
) -> None:
    values = np.zeros((12, 16), np.uint16)
    path: Path = dicom.slice("odd.dcm", values, **odd)
    caplog.clear()
    caplog.set_level(logging.DEBUG)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        list_series(dicom.folder)
        read_scan(path)
    assert heard == []
    assert "PLANTED" not in caplog.text
    assert capfd.readouterr().err == ""
