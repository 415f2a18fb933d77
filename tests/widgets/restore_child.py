"""A window in a process of its own: someone works until the process is killed."""

import hashlib
import json
import sys
import time
from pathlib import Path

import napari
from qtpy.QtTest import QTest

from napari_fedsam.annotation.errors import AnnotationError
from napari_fedsam.annotation.session_file import read_session
from napari_fedsam.widgets.dock import FedSamWidget


def describe(widget: FedSamWidget) -> dict:
    """What must be the same before and after."""
    session = widget.session
    return {
        "mask": hashlib.sha256(session.segmentation.tobytes()).hexdigest(),
        "voxels": int((session.segmentation > 0).sum()),
        "asks": sorted(
            [str(place), json.dumps(ask.as_json())] for place, ask in session.asks.items()
        ),
        "accepted": sorted(
            [str(place), each.record.id] for place, each in session.acceptances.items()
        ),
        "structures": [each.name for each in session.view.structures],
        "slice": str(session.view.slice),
    }


def _is_saved(site: Path, expected: dict) -> bool:
    try:
        left = [read_session(path) for path in (site / "sessions").glob("*.fedsam")]
    except AnnotationError:
        # Its first bytes are being written.
        return False
    return any(
        len(each.state.places) == len(expected["asks"]) + len(expected["accepted"]) for each in left
    )


def main(scan: Path, site: Path) -> None:
    """Accept one mask, leave a prompt on another slice, say so, and wait for the end."""
    viewer = napari.Viewer(show=True)
    widget = FedSamWidget(viewer, site)
    viewer.window.add_dock_widget(widget, name="napari-fedsam")

    def rest() -> None:
        QTest.qWait(50)
        while not widget.idle:
            QTest.qWait(20)

    rest()
    widget.open_scan(scan)
    rest()
    widget.session.add_click(34, 30)
    rest()
    widget.accept()
    rest()
    widget.next_slice()
    widget.set_structure("cyst")
    widget.session.add_scribble(((10.0, 10.0), (20.0, 12.0)))
    rest()
    expected = describe(widget)
    # The timer saves by itself: wait until the file holds what is on screen.
    while not _is_saved(site, expected):
        QTest.qWait(50)
    print(json.dumps(expected), flush=True)  # noqa: T201
    time.sleep(3600)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
