"""The dialogs of the federation section."""

import os

import pytest
import torch
from flwr.app import Message, MetricRecord, RecordDict
from qtpy.QtCore import QMimeData, QPointF, Qt, QUrl
from qtpy.QtGui import QDropEvent

from napari_fedsam.cases.case import Structure
from napari_fedsam.federation.audit import append_audit, describe_message, read_audit
from napari_fedsam.federation.connection_test import Check
from napari_fedsam.federation.coordinator import Coordinator
from napari_fedsam.federation.coordinator_setup import Reach
from napari_fedsam.federation.in_process import stand_in_for_a_run
from napari_fedsam.federation.messages import config_record
from napari_fedsam.federation.packed_parameters import pack_parameters
from napari_fedsam.federation.sent import keep_sent
from napari_fedsam.federation.site import Site
from napari_fedsam.federation.site_settings import SiteSettings
from napari_fedsam.federation.site_state import SiteState
from napari_fedsam.personalization.recipe import Recipe
from napari_fedsam.widgets.federation_audit import AuditDialog
from napari_fedsam.widgets.federation_checks import ChecksDialog
from napari_fedsam.widgets.federation_invitation import InvitationDialog
from napari_fedsam.widgets.federation_section import FederationSection

pytestmark = pytest.mark.window


def shown(widget, qtbot, name):
    """Show a widget; `NAPARI_FEDSAM_SCREENSHOTS` names a folder for its picture."""
    qtbot.addWidget(widget)
    widget.show()
    qtbot.waitExposed(widget)
    if folder := os.environ.get("NAPARI_FEDSAM_SCREENSHOTS"):
        widget.grab().save(f"{folder}/{name}.png")
    return widget


@pytest.fixture
def invitation(tmp_path):
    recipe = Recipe(
        name="Spleen on CT", structures=(Structure(value=1, name="spleen", color="#ff8800"),)
    )
    coordinator = Coordinator(tmp_path / "coordinator")
    coordinator.init(recipe, Reach("fed.example", 9443), contact="A. <b>Person</b>, +49 30 1")
    return coordinator.invite("Hospital A")


def test_an_invitation_is_read_in_plain_words_before_it_is_imported(qtbot, invitation):
    dialog = shown(InvitationDialog(invitation, None), qtbot, "invitation")
    texts = [
        dialog.words.itemAt(row, role).widget().text()
        for row in range(dialog.words.rowCount())
        for role in (dialog.words.ItemRole.LabelRole, dialog.words.ItemRole.FieldRole)
    ]
    everything = " ".join(texts)
    for words in ("With whom", "What leaves", "What stays", "How often", "Privacy"):
        assert f"<b>{words}</b>" in everything
    assert "fed.example:9443" in everything
    contact = dialog.words.itemAt(1, dialog.words.ItemRole.FieldRole).widget()
    assert "<b>Person" in contact.text()
    assert contact.textFormat() == Qt.TextFormat.PlainText
    assert not dialog.import_button.isEnabled()


def test_the_connection_test_ticks_or_explains(qtbot):
    dialog = ChecksDialog()
    dialog.show_check(Check("Name", True, "fed.example is 192.0.2.7"))
    dialog.show_check(Check("Port", False, "Port 9443 of fed.example cannot be reached."))
    dialog.finish()
    shown(dialog, qtbot, "checks")
    assert dialog.outcome.text() == "Taking part would fail: port."
    good = ChecksDialog()
    qtbot.addWidget(good)
    good.show_check(Check("Name", True, "x"))
    good.finish()
    assert "in order" in good.outcome.text()


def sent_messages(site):
    stand_in_for_a_run()
    for number in (1, 2):
        content = {
            "shared": pack_parameters({"lora.a": torch.full((2, 3), float(number))}),
            "metrics": MetricRecord({"loss": 0.25, "num-examples": 4}),
            "config": config_record("a" * 64, number),
        }
        message = Message(RecordDict(content), 2, "train")
        keep_sent(site.files.sent, message)
        append_audit(site.files.audit, describe_message(message, number))


def test_what_was_sent_is_opened_and_exported(qtbot, tmp_path):
    site = Site(tmp_path / "site")
    sent_messages(site)
    dialog = AuditDialog(site.audit(), site.files.sent)
    dialog.table.selectRow(0)
    shown(dialog, qtbot, "audit")
    text = dialog.content.toPlainText()
    assert dialog.table.item(0, 1).text() == "2"
    assert "the very bytes that were sent" in text
    assert "lora.a (2, 3) float32, from 2 to 2" in text
    assert "loss = 0.25" in text
    dialog.export(tmp_path / "list.jsonl")
    assert read_audit(tmp_path / "list.jsonl") == site.audit()
    next(site.files.sent.glob(f"{site.audit()[0].sha256}*")).unlink()
    dialog.table.selectRow(1)
    assert "no longer kept" in dialog.content.toPlainText()
    assert "lora.a (2, 3) float32" in dialog.content.toPlainText()


@pytest.fixture
def section(qtbot):
    made = FederationSection()
    made.resize(320, 300)
    made.show_state(SiteState(federation="Spleen on CT", address="fed.example:9443"))
    return shown(made, qtbot, "section")


def drop(section, *paths):
    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(str(path)) for path in paths])
    event = QDropEvent(
        QPointF(5, 5),
        Qt.DropAction.CopyAction,
        data,
        Qt.MouseButton.LeftButton,
        Qt.KeyboardModifier.NoModifier,
    )
    section.dropEvent(event)


def test_an_invitation_is_dropped_on_the_section(section, tmp_path):
    chosen = []
    section.invitation_chosen.connect(chosen.append)
    drop(section, tmp_path / "scan.nii.gz")
    drop(section, tmp_path / "a.json", tmp_path / "b.json")
    assert chosen == []
    drop(section, tmp_path / "Hospital A.json")
    assert chosen == [tmp_path / "Hospital A.json"]


def test_without_an_invitation_there_is_nothing_to_test_or_pause(section):
    assert section.test.isEnabled()
    section.show_state(SiteState())
    assert not section.test.isEnabled()
    assert not any(box.isVisible() for box in section.settings.values())


@pytest.mark.parametrize("name", ["paused", "when_idle", "ask_first"])
def test_showing_a_setting_does_not_ask_for_it(section, name):
    wanted = []
    section.setting_wanted.connect(lambda *change: wanted.append(change))
    state = SiteState(federation="F", address="a:1")
    section.show_state(state, settings=SiteSettings.model_validate({name: True}))
    box = section.settings[name]
    assert (box.isChecked(), wanted) == (True, [])
    assert not any(other.isChecked() for other in section.settings.values() if other is not box)
    box.click()
    assert wanted == [(name, False)]
