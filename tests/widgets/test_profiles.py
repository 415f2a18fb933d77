"""Two federations on one machine, switched in a real window."""

import os

import pytest
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QDialog, QLabel, QMessageBox

from napari_fedsam.cases.case import Structure
from napari_fedsam.federation.coordinator import Coordinator
from napari_fedsam.federation.profiles import Profiles
from napari_fedsam.federation.site import Site
from napari_fedsam.federation.site_state import Phase
from napari_fedsam.imaging.scan import Scan
from napari_fedsam.personalization.personalised_model import build_personalised_model
from napari_fedsam.personalization.recipe import MethodOptions, Recipe
from napari_fedsam.training.versions import VersionStore
from napari_fedsam.widgets.federation_invitation import InvitationDialog

pytestmark = pytest.mark.window

YES, NO = QMessageBox.StandardButton.Yes, QMessageBox.StandardButton.No
BALLS, RINGS = "Balls on MR", "Rings on MR"


@pytest.fixture(scope="module")
def invitations(tmp_path_factory):
    """Files with the invitations to two federations, by their names."""
    paths = {}
    for name, structures in ((BALLS, ("ball", "shell")), (RINGS, ("ring",))):
        recipe = Recipe(
            name=name,
            structures=tuple(
                Structure(value=value, name=each, color="#ff8800")
                for value, each in enumerate(structures, start=1)
            ),
            options=MethodOptions(blocks=1, lora_rank=2, experts=2, expert_width=4, top_k=1),
        )
        coordinator = Coordinator(tmp_path_factory.mktemp("coordinator"))
        coordinator.init(recipe)
        coordinator.invite("window")
        paths[name] = coordinator.invitation_path("window")
    return paths


@pytest.fixture(autouse=True)
def dialogs(monkeypatch):
    """Let a person agree to every invitation; the words of the dialogs that were shown."""
    shown = []

    def agree(dialog):
        shown.append(" ".join(label.text() for label in dialog.findChildren(QLabel)))
        dialog.compared.setChecked(True)
        return QDialog.DialogCode.Accepted

    monkeypatch.setattr(InvitationDialog, "exec", agree)
    return shown


@pytest.fixture
def asked(monkeypatch):
    """The questions that were asked; the answers to give are put into `answers`."""

    class Asked(list[str]):
        """Questions, with the answers to the next ones."""

    asked = Asked()

    def question(_parent, _title, text):
        asked.append(text)
        return asked.answers.pop(0)

    asked.answers = []
    monkeypatch.setattr("napari_fedsam.widgets.profile_switch.QMessageBox.question", question)
    return asked


@pytest.fixture
def two(widget, hands, invitations, asked, told):
    """The widget after both invitations were imported; the second federation is shown."""
    section = widget.federation_section
    section.invitation_chosen.emit(invitations[BALLS])
    hands.rest()
    assert not section.federations.isVisible()
    section.invitation_chosen.emit(invitations[RINGS])
    hands.qtbot.waitUntil(lambda: widget.site.state.federation == RINGS, timeout=30_000)
    hands.rest()
    return widget


def choose(widget, hands, name):
    """Pick an entry of the combo box with the keyboard, as a person does."""
    box = widget.federation_section.federations
    step = box.findText(name) - box.currentIndex()
    key = Qt.Key.Key_Down if step > 0 else Qt.Key.Key_Up
    box.setFocus()
    for _ in range(abs(step)):
        QTest.keyClick(box, key)
    hands.rest()


def switch(widget, hands, name):
    choose(widget, hands, name)
    hands.qtbot.waitUntil(lambda: widget.site.state.federation == name, timeout=30_000)
    hands.rest()


def keep_version(site_folder, name, number):
    files = Profiles(site_folder).named(name).files
    recipe = Recipe.read(files.recipe)
    model = build_personalised_model(recipe)
    store = VersionStore(files.versions)
    version = store.save(
        model.shared_state(), model.local_state(), round=number, recipe=recipe, dice={}
    )
    store.activate(version.number)
    return files


def structures(widget):
    return [each.name for each in widget.session.view.structures]


def on_disk(scan: Scan, folder) -> Scan:
    """Write a scan, so that its session can be kept."""
    import SimpleITK

    path = folder / f"{scan.name}.nii.gz"
    image = SimpleITK.GetImageFromArray(scan.pixels)
    image.SetSpacing(scan.geometry.spacing)
    SimpleITK.WriteImage(image, str(path))
    return path


def take_pictures(widget, hands):
    """Show the section in both themes; `NAPARI_FEDSAM_SCREENSHOTS` names a folder for pictures."""
    for theme in ("light", "dark"):
        widget.viewer.theme = theme
        widget.scroll_to(widget.federation_section)
        hands.rest()
        if folder := os.environ.get("NAPARI_FEDSAM_SCREENSHOTS"):
            path = f"{folder}/profiles-{theme}.png"
            widget.viewer.screenshot(path, canvas_only=False, flash=False)


def test_a_second_invitation_adds_a_federation_and_the_window_shows_it(two, hands, dialogs):
    section = two.federation_section
    assert section.federations.isVisible()
    texts = [section.federations.itemText(index) for index in range(section.federations.count())]
    assert texts == [BALLS, RINGS]
    assert section.federations.currentText() == RINGS
    assert section.address.text() == f"Coordinator at {two.site.state.address}"
    assert structures(two) == ["ring"]
    assert f"'{BALLS}' stay as they are" in dialogs[1]
    assert "stay as they are" not in dialogs[0]
    take_pictures(two, hands)


def test_the_combo_box_switches_model_structures_and_site(two, hands, told):
    keep_version(two.site_folder, BALLS, 3)
    switch(two, hands, BALLS)
    assert structures(two) == ["ball", "shell"]
    assert two.session.model.round == 3
    assert two.model_section.status.text() == "LiteMedSAM: personalised, round 3, this site"
    assert Profiles(two.site_folder).active.name == BALLS
    key = two.site.public_key
    switch(two, hands, RINGS)
    assert structures(two) == ["ring"]
    assert not two.session.model.is_personalised
    assert two.site.public_key != key
    # The same number of a version is another model elsewhere.
    files = keep_version(two.site_folder, RINGS, 8)
    hands.qtbot.waitUntil(lambda: two.session.model.round == 8, timeout=30_000)
    hands.rest()
    assert two.session.model.version == 1
    assert two.session.model.provenance.endswith(f"round 8 version 1 of {files.profile}")
    switch(two, hands, BALLS)
    assert two.session.model.round == 3
    # A switch is no update.
    assert told == ["Model updated to LiteMedSAM: personalised, round 8, this site"]


def test_a_model_that_cannot_be_read_is_not_answered_for_by_another_federations(two, hands, told):
    keep_version(two.site_folder, RINGS, 8)
    hands.qtbot.waitUntil(lambda: two.session.model.round == 8, timeout=30_000)
    hands.rest()
    files = keep_version(two.site_folder, BALLS, 3)
    (files.versions / "0001" / "shared.safetensors").write_bytes(b"")
    switch(two, hands, BALLS)
    assert "damaged" in told[-1]
    assert two.session.model.label == "LiteMedSAM: base model"


def test_settings_are_those_of_the_federation_that_is_shown(two, hands):
    two.federation_section.settings["paused"].click()
    switch(two, hands, BALLS)
    assert not two.federation_section.settings["paused"].isChecked()
    switch(two, hands, RINGS)
    assert two.federation_section.settings["paused"].isChecked()


def test_an_open_session_is_put_away_and_offered_on_coming_back(
    two, hands, asked, tmp_path, new_ball
):
    two.open_scan(on_disk(new_ball(), tmp_path))
    hands.qtbot.waitUntil(lambda: two.session.scan is not None, timeout=30_000)
    hands.rest()
    hands.click(34, 30)
    hands.press("K")
    hands.press("N")
    hands.click(34, 30)
    asked.answers = [NO, YES]
    choose(two, hands, BALLS)
    assert two.site.state.federation == RINGS
    assert two.federation_section.federations.currentText() == RINGS
    assert two.session.scan is not None
    switch(two, hands, BALLS)
    assert all("its session is kept with 'Rings on MR'" in text for text in asked)
    assert two.session.scan is None
    assert not two.session_section.offer.isVisible()
    assert [record.structure.name for record in two.store.records()] == ["ring"]
    switch(two, hands, RINGS)
    hands.qtbot.waitUntil(two.session_section.offer.isVisible, timeout=30_000)
    assert "1 accepted, 1 prompted" in two.session_section.text.text()
    two.session_section.restore.click()
    hands.qtbot.waitUntil(lambda: len(two.session.acceptances) == 1, timeout=30_000)
    hands.rest()
    assert structures(two) == ["ring"]


def test_an_untouched_scan_stays_open(two, hands, asked, tmp_path, new_ball):
    two.open_scan(on_disk(new_ball(), tmp_path))
    hands.qtbot.waitUntil(lambda: two.session.scan is not None, timeout=30_000)
    hands.rest()
    switch(two, hands, BALLS)
    assert asked == []
    assert two.session.scan is not None
    hands.click(34, 30)
    hands.press("K")
    assert [record.structure.name for record in two.store.records()] == ["ball"]


def test_a_session_that_cannot_be_kept_is_not_closed(two, hands, ball, told, asked):
    hands.click(34, 30)
    choose(two, hands, BALLS)
    assert "does not come from a file" in told[-1]
    assert two.site.state.federation == RINGS
    assert not two.session.ask.is_empty


def test_each_federation_has_its_worklists(two, hands, tmp_path, new_ball):
    scans = tmp_path / "scans"
    scans.mkdir()
    on_disk(new_ball(), scans)
    two.worklist_section.open_wanted.emit(scans)
    hands.qtbot.waitUntil(lambda: two.session.scan is not None, timeout=30_000)
    hands.rest()
    two.do("scan_done")
    hands.rest()
    switch(two, hands, BALLS)
    assert two.worklist is None
    assert not two.worklist_section.list.isVisible()
    assert not two.worklist_section.resume.isVisible()
    switch(two, hands, RINGS)
    hands.qtbot.waitUntil(two.worklist_section.resume.isVisible, timeout=30_000)
    two.worklist_section.resume.click()
    hands.qtbot.waitUntil(lambda: two.worklist is not None, timeout=30_000)
    hands.rest()
    assert [entry.flag.value for entry in two.worklist.entries] == ["done"]


def test_a_window_without_work_follows_another_program(two, hands):
    Profiles(two.site_folder).use(BALLS)
    hands.qtbot.waitUntil(lambda: two.site.state.federation == BALLS, timeout=30_000)
    hands.rest()
    assert structures(two) == ["ball", "shell"]


def test_a_window_at_work_does_not_follow(two, hands, ball):
    hands.click(34, 30)
    Profiles(two.site_folder).use(BALLS)
    two._refresh()
    hands.rest()
    assert two.site.state.federation == RINGS
    two.session.clear()


def test_training_here_holds_the_federation(two, hands, told, monkeypatch):
    monkeypatch.setattr(type(two._training_panel.training), "running", True)
    choose(two, hands, BALLS)
    assert told == [
        "Training here is under way for this federation: wait until it is done or cancel it, then "
        "switch."
    ]
    assert two.federation_section.federations.currentText() == RINGS


@pytest.mark.federation
def test_switching_leaves_what_was_joined_here_after_a_question(two, hands, asked):
    section = two.federation_section
    site = two.site
    try:
        section.toggle.setChecked(True)
        hands.qtbot.waitUntil(lambda: "connecting" in section.state.text(), timeout=60_000)
        asked.answers = [NO, YES]
        choose(two, hands, BALLS)
        assert asked[0] == f"This window leaves '{RINGS}'. Switch to '{BALLS}'?"
        assert site.holds_node
        assert section.federations.currentText() == RINGS
        switch(two, hands, BALLS)
        assert not site.holds_node
        assert Profiles(two.site_folder).taking_part() is None
        assert section.state.text() == "State: offline"
    finally:
        site.leave()
        two.site.leave()


@pytest.mark.federation
def test_a_service_of_one_federation_goes_on_while_the_window_shows_another(
    two, hands, asked, told
):
    service = Site(two.site_folder, Profiles(two.site_folder).named(RINGS).key)
    section = two.federation_section
    try:
        service.join()
        hands.qtbot.waitUntil(lambda: "connecting" in section.state.text(), timeout=60_000)
        switch(two, hands, BALLS)
        assert asked == []
        assert section.state.text() == "State: offline"
        section.toggle.setChecked(True)
        hands.qtbot.waitUntil(lambda: bool(told), timeout=60_000)
        assert told == [
            f"'{RINGS}' takes part on this machine now, and one federation at a time can; leave it "
            "first."
        ]
        two.shut_down()
        service.refresh()
        assert service.state.phase is Phase.CONNECTING
    finally:
        service.leave()
