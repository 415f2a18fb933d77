"""Joining and leaving from the window."""

import contextlib
import socket
import threading

import psutil
import pytest
from qtpy.QtWidgets import QDialog, QLabel

from napari_fedsam.cases.case import Structure
from napari_fedsam.federation.coordinator import Coordinator
from napari_fedsam.federation.coordinator_setup import Reach
from napari_fedsam.federation.keys import ensure_signing_key
from napari_fedsam.federation.processes import OWNER_VARIABLE
from napari_fedsam.federation.site import Site
from napari_fedsam.federation.site_state import Phase
from napari_fedsam.personalization.recipe import MethodOptions, Recipe, TrainingOptions
from napari_fedsam.training.versions import VersionStore
from napari_fedsam.widgets.federation_invitation import InvitationDialog

pytestmark = [pytest.mark.window, pytest.mark.federation]

RECIPE = Recipe(
    name="balls",
    structures=(Structure(value=1, name="ball", color="#ff8800"),),
    options=MethodOptions(blocks=1, lora_rank=2, experts=2, expert_width=4, top_k=1),
    training=TrainingOptions(epochs=1, batch_size=2, augmentations=0),
    minimum_sites=1,
    minimum_cases=1,
)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def processes_of(folder):
    mark = str(folder.resolve())
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(OWNER_VARIABLE) == mark:
                found.append(process)
    return found


@pytest.fixture
def coordinator(tmp_path):
    coordinator = Coordinator(tmp_path / "coordinator")
    coordinator.init(RECIPE, Reach(port=free_port()))
    yield coordinator
    coordinator.stop()


@pytest.fixture
def joined_site_is_left(widget):
    yield
    widget.site.leave()


@pytest.fixture(autouse=True)
def dialogs(monkeypatch):
    """Let a person agree to what a dialog shows; the dialogs that were shown."""
    shown = []

    def agree(dialog):
        shown.append(dialog)
        dialog.compared.setChecked(True)
        assert dialog.import_button.isEnabled()
        return QDialog.DialogCode.Accepted

    monkeypatch.setattr(InvitationDialog, "exec", agree)
    return shown


def import_invitation(widget, coordinator, tmp_path, **changes):
    path = tmp_path / "invitation.json"
    key = ensure_signing_key(coordinator.files.signing_key)
    coordinator.invite("window").model_copy(update=changes).signed(key).write(path)
    widget.federation_section.invitation_chosen.emit(path)


def state(widget):
    return widget.federation_section.state.text()


def test_something_that_is_no_invitation_is_told(hands, widget, told, tmp_path):
    path = tmp_path / "holiday.json"
    path.write_text("{}")
    widget.federation_section.invitation_chosen.emit(path)
    assert "holiday.json is not an invitation" in told[0]
    assert not widget.federation_toggle.isEnabled()


@pytest.mark.usefixtures("joined_site_is_left")
def test_a_coordinator_out_of_reach_is_said_in_words(hands, widget, coordinator, tmp_path):
    address = f"127.0.0.1:{free_port()}"
    import_invitation(widget, coordinator, tmp_path, address=address)
    assert widget.federation_toggle.isEnabled()
    assert address in widget.federation_section.address.text()
    assert [each.name for each in widget.session.view.structures] == ["ball"]
    widget.federation_toggle.setChecked(True)
    hands.qtbot.waitUntil(lambda: "connecting" in state(widget), timeout=60_000)
    hands.qtbot.waitUntil(
        lambda: "does not answer" in widget.federation_section.message.text(), timeout=60_000
    )
    assert widget.federation_toggle.isChecked()
    widget.federation_toggle.setChecked(False)
    hands.qtbot.waitUntil(lambda: state(widget) == "State: offline", timeout=60_000)
    assert not widget.federation_toggle.isChecked()
    assert processes_of(widget.site.files.folder) == []


@pytest.mark.usefixtures("joined_site_is_left", "ball")
def test_toggle_joins_a_round_arrives_toggle_leaves(hands, widget, coordinator, tmp_path, told):
    coordinator.start()
    import_invitation(widget, coordinator, tmp_path)
    widget.federation_section.copy_key.click()
    from qtpy.QtGui import QGuiApplication

    key = QGuiApplication.clipboard().text()
    assert key == widget.site.public_key
    coordinator.approve("window", key)
    for _ in range(2):
        hands.click(34, 30)
        hands.press("K")
        hands.press("N")
    widget.federation_toggle.setChecked(True)
    hands.qtbot.waitUntil(lambda: state(widget) == "State: waiting for a round", timeout=90_000)
    rounds = threading.Thread(target=coordinator.run, args=(1,), kwargs={"wait_seconds": 120})
    rounds.start()
    try:
        hands.qtbot.waitUntil(lambda: state(widget) == "State: up to date", timeout=180_000)
    finally:
        rounds.join()
    # Without held-out cases nothing is used unless the person says so.
    assert VersionStore(widget.site.files.versions).active() is None
    newest = widget.model_section.use_newest
    hands.qtbot.waitUntil(newest.isVisible, timeout=60_000)
    assert newest.text() == "Use the newer model: round 1, this site"
    newest.click()
    hands.qtbot.waitUntil(lambda: widget.session.model.round == 1, timeout=60_000)
    assert told == ["Model updated to LiteMedSAM: personalised, round 1, this site"]
    hands.qtbot.waitUntil(lambda: not newest.isVisible(), timeout=60_000)
    assert widget.federation_section.numbers.text().startswith("1 round joined, ")
    assert widget.site.state.bytes_sent > 0
    widget.federation_toggle.setChecked(False)
    hands.qtbot.waitUntil(lambda: state(widget) == "State: offline", timeout=60_000)
    assert widget.site.state.phase is Phase.OFFLINE
    assert processes_of(widget.site.files.folder) == []


def test_closing_the_window_leaves_the_federation(hands, viewer, widget, coordinator, tmp_path):
    import_invitation(widget, coordinator, tmp_path)
    widget.federation_toggle.setChecked(True)
    hands.qtbot.waitUntil(lambda: "connecting" in state(widget), timeout=60_000)
    site_folder = widget.site_folder
    viewer.close()
    for thread in threading.enumerate():
        if thread.name == "napari-fedsam-leave":
            thread.join(60)
    assert processes_of(site_folder / "federation") == []
    assert Site(site_folder).state.phase is Phase.OFFLINE


def test_nothing_is_imported_before_the_fingerprint_was_compared(
    hands, widget, coordinator, tmp_path, monkeypatch, dialogs
):
    monkeypatch.setattr(InvitationDialog, "exec", lambda _dialog: QDialog.DialogCode.Rejected)
    import_invitation(widget, coordinator, tmp_path)
    assert widget.site.invitation is None
    invitation = coordinator.invite("window")
    dialog = InvitationDialog(invitation, None)
    assert not dialog.import_button.isEnabled()
    dialog.compared.setChecked(True)
    assert dialog.import_button.isEnabled()
    assert invitation.fingerprint in dialog.fingerprint.text()
    known = InvitationDialog(invitation, invitation)
    assert known.import_button.isEnabled()
    other = Coordinator(tmp_path / "other")
    other.init(coordinator.recipe)
    stranger = InvitationDialog(other.invite("window"), invitation)
    assert not stranger.import_button.isEnabled()
    assert any("another coordinator" in label.text() for label in stranger.findChildren(QLabel))
    stranger.deleteLater()
    dialog.deleteLater()
    known.deleteLater()
