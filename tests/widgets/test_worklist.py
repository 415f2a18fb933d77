"""Working through a list of scans with buttons and keys, in a real window."""

import gc
import logging
import weakref

import pytest
import SimpleITK as sitk
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest

from napari_fedsam.annotation.model_in_use import ModelInUse
from napari_fedsam.annotation.worklist import Flag, Order
from napari_fedsam.cases.case import Structure
from napari_fedsam.personalization.personalised_model import build_personalised_model
from napari_fedsam.personalization.recipe import MethodOptions, Recipe
from napari_fedsam.training.versions import VersionStore

pytestmark = pytest.mark.window

CENTRE = (34, 30)
RECIPE = Recipe(
    name="balls",
    structures=(Structure(value=1, name="ball", color="#ff8800"),),
    options=MethodOptions(blocks=1, lora_rank=2, experts=2, expert_width=4, top_k=1),
)


def write(scan, path):
    image = sitk.GetImageFromArray(scan.pixels)
    image.SetSpacing(scan.geometry.spacing)
    image.SetDirection(scan.geometry.direction)
    sitk.WriteImage(image, str(path))


@pytest.fixture
def folder(new_ball, tmp_path):
    folder = tmp_path / "scans"
    folder.mkdir()
    for seed in range(3):
        write(new_ball(seed=seed), folder / f"Jane_Doe_{seed}.nrrd")
    return folder


@pytest.fixture
def told(monkeypatch):
    messages = []
    for module in ("dock", "scan_opening"):
        monkeypatch.setattr(f"napari_fedsam.widgets.{module}.show_error", messages.append)
    monkeypatch.setattr("napari_fedsam.widgets.worklist_panel.show_info", messages.append)
    return messages


@pytest.fixture
def opened(folder, widget, hands):
    """The folder, open on its first scan."""
    widget.worklist_section.open_wanted.emit(folder)
    hands.rest()
    return widget.worklist


def on_screen(widget):
    return widget.session.scan.source.stem


def flags(worklist):
    return [entry.flag for entry in worklist.entries]


def push(hands, name):
    QTest.mouseClick(hands.widget.worklist_section.buttons[name], Qt.MouseButton.LeftButton)
    hands.rest()


def words(widget, row):
    model = widget.worklist_section.model
    return model.data(model.index(row), Qt.ItemDataRole.DisplayRole)


def test_a_folder_opens_on_its_first_scan_and_keys_flag_and_go_on(opened, widget, hands, told):
    assert on_screen(widget) == "Jane_Doe_0"
    assert widget.worklist_section.status.text() == "3 of 3 left"
    hands.press("Shift+D")
    assert on_screen(widget) == "Jane_Doe_1"
    hands.press("Shift+S")
    assert on_screen(widget) == "Jane_Doe_2"
    hands.press("Shift+M")
    assert flags(opened) == [Flag.DONE, Flag.SKIPPED, Flag.UNSURE]
    assert told == ["No other scan of the worklist is left to do."]
    assert widget.worklist_section.status.text() == "0 of 3 left, 1 unsure, 1 skipped"


def test_buttons_do_the_same_and_next_leaves_no_flag(opened, widget, hands):
    push(hands, "next_scan")
    assert on_screen(widget) == "Jane_Doe_1"
    push(hands, "scan_done")
    push(hands, "scan_unsure")
    assert on_screen(widget) == "Jane_Doe_0"
    push(hands, "skip_scan")
    assert flags(opened) == [Flag.SKIPPED, Flag.DONE, Flag.UNSURE]


def test_one_scan_is_held_at_a_time(opened, widget, hands):
    first = weakref.ref(widget.session.scan)
    count = len(widget.viewer.layers)
    hands.click(*CENTRE)
    hands.press("K")
    hands.press("Alt+N")
    assert len(widget.viewer.layers) == count
    hands.press("Alt+N")
    gc.collect()
    assert first() is None


def test_what_was_done_on_a_scan_is_there_again_and_counted(opened, widget, hands):
    hands.click(*CENTRE)
    hands.press("K")
    hands.press("N")
    hands.click(*CENTRE)
    accepted = widget.segmentation_layer.data.copy()
    ask = widget.session.ask
    assert accepted.any()
    hands.press("Alt+N")
    assert on_screen(widget) == "Jane_Doe_1"
    assert not widget.segmentation_layer.data.any()
    section = widget.worklist_section
    section.list.doubleClicked.emit(section.model.index(0))
    hands.rest()
    assert on_screen(widget) == "Jane_Doe_0"
    assert (widget.segmentation_layer.data == accepted).all()
    assert widget.session.ask == ask
    assert opened.entries[0].prompts == 2
    assert opened.entries[0].seconds > 0
    assert "2 prompts" in words(widget, 0)
    assert opened.entries[1].prompts == 0


def test_it_goes_on_where_one_stopped(opened, folder, widget, hands, viewer, tmp_path, request):
    hands.press("Shift+D")
    hands.click(*CENTRE)
    ask = widget.session.ask
    viewer.window.remove_dock_widget(widget)
    viewer.layers.clear()
    again = request.getfixturevalue("make_widget")()
    section = again.worklist_section
    assert section.resume.isVisibleTo(section)
    QTest.mouseClick(section.resume, Qt.MouseButton.LeftButton)
    hands.widget = again
    hands.rest()
    assert flags(again.worklist) == [Flag.DONE, Flag.TO_DO, Flag.TO_DO]
    assert on_screen(again) == "Jane_Doe_1"
    assert again.session.ask == ask
    assert not section.resume.isVisibleTo(section)


def test_a_broken_file_is_told_in_one_sentence_and_the_list_goes_on(folder, widget, hands, told):
    (folder / "Jane_Doe_1.nrrd").write_bytes(b"nothing")
    widget.open_worklist(folder)
    hands.rest()
    hands.press("Shift+D")
    assert on_screen(widget) == "Jane_Doe_2"
    assert len(told) == 1
    assert told[0].startswith("Jane_Doe_1.nrrd")
    assert words(widget, 1) == "Jane_Doe_1.nrrd\ncannot be opened"
    model = widget.worklist_section.model
    assert model.data(model.index(1), Qt.ItemDataRole.ToolTipRole) == told[0]
    assert "1 cannot be opened" in widget.worklist_section.status.text()


def test_when_the_session_cannot_be_saved_the_scan_stays(opened, widget, hands, told, monkeypatch):
    hands.click(*CENTRE)

    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("napari_fedsam.annotation.autosave.atomic_path", refuse)
    hands.press("Alt+N")
    assert on_screen(widget) == "Jane_Doe_0"
    assert "could not be saved" in told[0]
    monkeypatch.undo()
    hands.press("Alt+N")
    assert on_screen(widget) == "Jane_Doe_1"


def test_a_scan_of_the_list_that_is_opened_by_hand_is_the_current_one(
    opened, folder, widget, hands
):
    widget.open_scan(folder / "Jane_Doe_2.nrrd")
    hands.rest()
    assert opened.current == 2
    hands.press("Shift+D")
    assert flags(opened) == [Flag.TO_DO, Flag.TO_DO, Flag.DONE]


def test_without_a_worklist_the_keys_say_so(widget, hands, told):
    hands.press("Shift+D")
    assert told == ["No worklist is open: open a folder of scans or a list first."]


def test_what_is_no_list_is_told(widget, hands, told, tmp_path):
    (tmp_path / "x.csv").write_text("name\nfoo\n")
    widget.open_worklist(tmp_path / "x.csv")
    hands.rest()
    assert len(told) == 1
    assert "lacks rows or the columns" in told[0]
    assert widget.worklist is None


@pytest.fixture
def personalised(tmp_path):
    site = tmp_path / "site"
    (site / "federation").mkdir(parents=True)
    RECIPE.write(site / "federation" / "recipe.json")
    model = build_personalised_model(RECIPE)
    local = {name: value + 0.5 for name, value in model.local_state().items()}
    store = VersionStore(site / "versions")
    version = store.save(model.shared_state(), local, round=2, recipe=RECIPE, dice={"none": 0.5})
    store.activate(version.number)


def test_a_personalised_model_proposes_on_all_scans_before_they_are_opened(
    personalised, opened, widget, hands, qtbot, caplog
):
    assert isinstance(widget.session.model, ModelInUse)
    with caplog.at_level(logging.DEBUG):
        qtbot.waitUntil(
            lambda: (
                all(entry.proposal for entry in opened.entries) and not widget._proposals.running
            ),
            timeout=120_000,
        )
    assert "Jane" not in caplog.text
    for entry in opened.entries:
        assert entry.proposal.model == widget.session.model.provenance
        assert 0 <= entry.proposal.confidence <= 1
        assert 0 <= entry.proposal.disagreement <= 1
    section = widget.worklist_section
    assert all(section.orders.model().item(index).isEnabled() for index in range(3))
    assert "confidence" in words(widget, 2)
    section.orders.setCurrentIndex(section.orders.findData(Order.DISAGREEMENT))
    section.orders.activated.emit(section.orders.currentIndex())
    largest = max((1, 2), key=lambda index: opened.entries[index].proposal.disagreement)
    hands.press("Shift+D")
    assert opened.current == largest


def test_a_base_model_offers_the_order_of_the_list_alone(opened, widget):
    section = widget.worklist_section
    assert [section.orders.model().item(index).isEnabled() for index in range(3)] == [
        True,
        False,
        False,
    ]
    assert not widget._proposals.running
