"""Nothing is lost: sessions saved by a timer, offered after kill -9, saved and opened by hand."""

import json
import os
import runpy
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import SimpleITK as sitk
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest

pytestmark = pytest.mark.window

CHILD = Path(__file__).with_name("restore_child.py")
describe = runpy.run_path(str(CHILD))["describe"]

CENTRE = (34, 30)


@pytest.fixture
def scan_file(new_ball, tmp_path):
    scan = new_ball()
    image = sitk.GetImageFromArray(scan.pixels)
    image.SetSpacing(scan.geometry.spacing)
    image.SetDirection(scan.geometry.direction)
    sitk.WriteImage(image, str(tmp_path / "ball.nrrd"))
    return tmp_path / "ball.nrrd"


def push(button, hands):
    QTest.mouseClick(button, Qt.MouseButton.LeftButton)
    hands.rest()


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_after_kill_9_the_next_start_offers_the_session_and_restores_it_exactly(
    scan_file, tmp_path, make_widget, qtbot, hands_of
):
    site = tmp_path / "site"
    child = subprocess.Popen(
        [sys.executable, str(CHILD), scan_file, site],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        line = next(text for text in child.stdout if text.startswith("{"))
        os.kill(child.pid, signal.SIGKILL)
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
    expected = json.loads(line)
    assert expected["voxels"] > 0
    widget = make_widget(site)
    hands = hands_of(widget)
    section = widget.session_section
    assert section.offer.isVisible()
    assert "Unfinished session of ball" in section.text.text()
    push(section.restore, hands)
    qtbot.waitUntil(lambda: widget.session.acceptances and widget.idle, timeout=60_000)
    assert json.loads(json.dumps(describe(widget))) == expected
    assert not section.offer.isVisible()
    assert widget.shapes_layer.nshapes == 1
    assert widget.session.preview is not None


def test_a_saved_session_is_opened_with_its_scan(scan_file, tmp_path, hands, widget):
    widget.open_scan(scan_file)
    hands.rest()
    hands.click(*CENTRE)
    hands.press("K")
    hands.press("N")
    hands.press("G")
    hands.drag((18, 14), (50, 46))
    expected = describe(widget)
    widget.save_session(tmp_path / "mine")
    hands.rest()
    widget.viewer.layers.clear()
    hands.rest()
    assert widget.session.scan is None
    widget.open_session(tmp_path / "mine.fedsam")
    hands.rest()
    assert describe(widget) == expected
    assert widget.shapes_layer.nshapes == 1
    assert widget.segmentation_layer.data.any()


def test_an_offer_is_discarded(scan_file, tmp_path, hands, widget, make_widget, hands_of):
    widget.open_scan(scan_file)
    hands.rest()
    hands.click(*CENTRE)
    widget.shut_down()
    widget.viewer.layers.clear()
    second = make_widget()
    push(second.session_section.discard, hands_of(second))
    assert not second.session_section.offer.isVisible()
    assert list((tmp_path / "site" / "sessions").iterdir()) == []


def test_a_session_whose_scan_is_gone_is_explained(scan_file, tmp_path, hands, widget, monkeypatch):
    told = []
    monkeypatch.setattr("napari_fedsam.widgets.dock.show_error", told.append)
    widget.open_scan(scan_file)
    hands.rest()
    hands.click(*CENTRE)
    widget.save_session(tmp_path / "mine.fedsam")
    hands.rest()
    scan_file.unlink()
    widget.open_session(tmp_path / "mine.fedsam")
    hands.rest()
    assert "is not where it was" in told[0]
