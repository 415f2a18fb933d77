"""The sections on their own: what they say, offer and ask for."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from qtpy.QtCore import Qt

from napari_fedsam.annotation.local_training import TrainingState
from napari_fedsam.annotation.model_in_use import ModelInUse
from napari_fedsam.annotation.model_source import SITE_MODEL
from napari_fedsam.cases.case import NewCase, Structure
from napari_fedsam.cases.store import CaseStore
from napari_fedsam.federation.site_state import Phase, SiteState
from napari_fedsam.training.site_training import SiteTrainingResult
from napari_fedsam.training.versions import Version
from napari_fedsam.widgets.cases_section import CasesSection
from napari_fedsam.widgets.federation_section import FederationSection
from napari_fedsam.widgets.model_section import ModelSection
from napari_fedsam.widgets.training_section import TrainingSection

pytestmark = pytest.mark.window

JOINED = {"federation": "spleens", "address": "127.0.0.1:9093"}


@pytest.fixture
def federation(qtbot):
    section = FederationSection()
    qtbot.addWidget(section)
    return section


WORSE = {"none": 0.5, "box": 0.8, "point": 0.7}


@pytest.mark.parametrize(
    ("outcome", "sentence"),
    [
        ({"after": {"none": 0.9, "box": 0.9, "point": None}, "outcome": "used"}, "It is in use."),
        ({"after": WORSE}, "Dice with a box: 0.90 before, 0.80 now"),
        ({"after": WORSE}, "It did worse: it is kept but not used."),
        ({"after": dict.fromkeys(WORSE)}, "No held-out case shows the structure"),
        ({"after": dict.fromkeys(WORSE), "held_out": 0}, "There are no held-out cases"),
    ],
)
def test_what_training_here_came_to_is_told(qtbot, outcome, sentence):
    section = TrainingSection()
    qtbot.addWidget(section)
    facts = {"version": 1, "cases": 3, "held_out": 2, "outcome": "worse"}
    before = {"before": dict.fromkeys(WORSE, 0.9)}
    result = SiteTrainingResult(**(facts | before | outcome))
    section.show_state(TrainingState(status="done", result=result))
    text = section.outcome.text()
    assert text.startswith("Trained on 3 cases.")
    assert sentence in text


def test_without_a_profile_there_is_nothing_to_join(federation):
    assert not federation.toggle.isEnabled()
    assert "import the invitation" in federation.address.text()


@pytest.mark.parametrize(
    ("state", "words", "on"),
    [
        (SiteState(**JOINED), "State: offline", False),
        (SiteState(phase=Phase.CONNECTING, **JOINED), "State: connecting", True),
        (SiteState(phase=Phase.WAITING, **JOINED), "State: waiting for a round", True),
        (SiteState(phase=Phase.TRAINING, progress=0.4, **JOINED), "State: training 40 %", True),
        (SiteState(phase=Phase.UP_TO_DATE, **JOINED), "State: up to date", True),
        (
            SiteState(phase=Phase.ERROR, message="the disk is full", **JOINED),
            "State: error: the disk is full",
            True,
        ),
    ],
)
def test_the_state_is_told_in_words(federation, state, words, on):
    federation.show_state(state)
    assert federation.state.text() == words
    assert federation.toggle.isChecked() is on
    assert federation.address.text() == "spleens at 127.0.0.1:9093"


def test_why_it_stands_so_is_told_below(federation):
    waiting = SiteState(phase=Phase.CONNECTING, message="host:1 does not answer.", **JOINED)
    federation.show_state(waiting)
    assert federation.message.text() == "host:1 does not answer."
    assert federation.message.isVisibleTo(federation)
    broken = SiteState(phase=Phase.ERROR, message="the disk is full", **JOINED)
    federation.show_state(broken)
    assert not federation.message.isVisibleTo(federation)


def test_what_was_exchanged_is_counted(federation):
    federation.show_state(SiteState(rounds_joined=1, bytes_sent=2_345_678, **JOINED))
    assert federation.numbers.text() == "1 round joined, 2.35 MB sent"
    federation.show_state(SiteState(rounds_joined=2, bytes_sent=12, **JOINED))
    assert federation.numbers.text() == "2 rounds joined, 12 bytes sent"


def test_showing_a_state_is_no_wish(federation, qtbot):
    with (
        qtbot.assertNotEmitted(federation.join_wanted),
        qtbot.assertNotEmitted(federation.leave_wanted),
    ):
        federation.show_state(SiteState(phase=Phase.WAITING, **JOINED))
        federation.show_state(SiteState(**JOINED))


def test_the_toggle_asks_and_rests_while_it_changes(federation, qtbot):
    federation.show_state(SiteState(**JOINED))
    with qtbot.waitSignal(federation.join_wanted):
        federation.toggle.setChecked(True)
    federation.show_state(SiteState(**JOINED), changing="starting")
    assert federation.state.text() == "State: starting"
    assert federation.toggle.isChecked()
    assert not federation.toggle.isEnabled()
    federation.show_state(SiteState(phase=Phase.WAITING, **JOINED))
    with qtbot.waitSignal(federation.leave_wanted):
        federation.toggle.setChecked(False)


def test_the_plot_shows_the_dice_of_each_round(federation, qtbot):
    assert not federation.plot.isVisibleTo(federation)
    federation.plot.set_colors("#ffffff", "#101010")
    federation.show_state(SiteState(dice_history=((1, 0.4), (2, 0.7)), **JOINED))
    assert federation.plot.isVisibleTo(federation)
    figure = federation.plot._canvas.figure
    assert figure.axes[0].lines[0].get_ydata().tolist() == [0.4, 0.7]
    assert figure.get_facecolor()[:3] == pytest.approx((16 / 255,) * 3)
    federation.plot.set_colors("#000000", "#ffffff")
    assert figure.get_facecolor()[:3] == (1, 1, 1)


@pytest.fixture
def store(tmp_path):
    return CaseStore(tmp_path / "cases")


def keep(store, *, absent=False, scan="scan", false_positives=None):
    mask = np.zeros((20, 30), bool)
    prompts = []
    if false_positives is not None:
        prompts = [{"kind": "none", "false_positive_pixels": false_positives}]
    if not absent:
        mask[5:10, 5:10] = True
    return store.accept(
        NewCase(
            image=np.arange(600, dtype=np.int16).reshape(20, 30),
            mask=mask,
            structure=Structure(value=1, name="spleen", color="#ff0000"),
            window=(0, 600),
            scan_key=scan,
            prompts=prompts,
            modality="CT",
            plane="axial",
            slice_index=4,
            annotator="anna",
            model="LiteMedSAM",
        )
    )


@pytest.fixture
def cases(store, qtbot):
    section = CasesSection(store.folder, store.thumbnail_path, "anna")
    qtbot.addWidget(section)
    return section


def test_no_case_is_said(cases):
    assert cases.count.text() == "No case kept yet."
    assert not cases.delete.isEnabled()


def test_cases_are_listed_with_thumbnail_structure_and_date(cases, store):
    first, second = keep(store), keep(store, absent=True, false_positives=7)
    keep(store, absent=True, false_positives=0)
    cases.show_records(store.records())
    assert cases.model.rowCount() == 3
    assert cases.model.records[-1].id == first.id
    index = cases.model.index(1)
    text = cases.model.data(index, Qt.ItemDataRole.DisplayRole)
    assert text.startswith("spleen (absent)\n")
    assert second.created_at.astimezone().strftime("%Y-%m-%d") in text
    icon = cases.model.data(index, Qt.ItemDataRole.DecorationRole)
    assert not icon.pixmap(48, 48).isNull()
    assert icon.pixmap(48, 48).width() == 30
    tip = cases.model.data(index, Qt.ItemDataRole.ToolTipRole)
    assert "CT axial slice 5, accepted by anna, mask proposed by LiteMedSAM" in tip
    assert "3 cases" in cases.count.text()
    assert "2 absent, 1 wrongly proposed" in cases.count.text()


def test_a_chosen_case_can_be_deleted_after_a_question(cases, store, qtbot, monkeypatch):
    record = keep(store)
    cases.show_records(store.records())
    cases.list.setCurrentIndex(cases.model.index(0))
    answers = []
    monkeypatch.setattr(
        "napari_fedsam.widgets.cases_section.QMessageBox.question",
        lambda *_: answers.pop(),
    )
    from qtpy.QtWidgets import QMessageBox

    answers.append(QMessageBox.StandardButton.No)
    with qtbot.assertNotEmitted(cases.delete_wanted):
        cases.delete.click()
    answers.append(QMessageBox.StandardButton.Yes)
    with qtbot.waitSignal(cases.delete_wanted) as asked:
        cases.delete.click()
    assert asked.args == [record.id]


def test_the_folder_is_revealed(cases, store, monkeypatch):
    opened = []
    monkeypatch.setattr(
        "napari_fedsam.widgets.cases_section.QDesktopServices.openUrl", opened.append
    )
    cases.reveal.click()
    assert [Path(url.toLocalFile()) for url in opened] == [store.folder]


def test_the_annotator_can_be_changed(cases, qtbot):
    cases.annotator.setText(" Bob ")
    with qtbot.waitSignal(cases.annotator_changed) as changed:
        cases.annotator.editingFinished.emit()
    assert changed.args == ["Bob"]


@pytest.fixture
def models(qtbot):
    section = ModelSection()
    qtbot.addWidget(section)
    return section


def test_the_model_in_use_is_named(models):
    assert models.status.text() == "no model loaded yet"
    models.show_model(ModelInUse(None, "LiteMedSAM"))
    assert models.status.text() == "LiteMedSAM: base model"
    models.show_model(ModelInUse(None, "LiteMedSAM", round=3, version=1))
    assert models.status.text() == "LiteMedSAM: personalised, round 3, this site"


def test_going_back_is_offered_where_there_is_a_version_to_leave(models):
    assert not models.back.isVisibleTo(models)
    # Its model could not be loaded, and the base model answers.
    models.show_model(ModelInUse(None, "LiteMedSAM"))
    models.show_back(True)
    assert models.back.isVisibleTo(models)


@pytest.mark.parametrize(
    ("number", "words"), [(0, "trained at this site"), (3, "round 3, this site")]
)
def test_a_newer_model_is_offered_by_its_whole_name(models, number, words):
    version = Version(
        number=1,
        round=number,
        recipe_hash="",
        created=datetime.now(UTC),
        dice={},
        sha256={},
    )
    models.show_unused(version)
    assert models.use_newest.text() == f"Use the newer model: {words}"
    models.show_unused(None)
    assert not models.use_newest.isVisibleTo(models)


def test_every_model_of_the_registry_is_offered(models):
    offered = [models.models.itemData(index) for index in range(models.models.count())]
    assert offered[0] == SITE_MODEL
    assert {"lite_medsam", "vit_b", "vit_l", "vit_h", "medsam"} <= set(offered)


def test_a_checkpoint_is_chosen_from_a_file(models, qtbot, monkeypatch):
    monkeypatch.setattr(
        "napari_fedsam.widgets.model_section.QFileDialog.getOpenFileName",
        lambda *_, **__: ("/folder/mine.pth", ""),
    )
    models.models.setCurrentIndex(models.models.count() - 1)
    with qtbot.waitSignal(models.model_chosen) as chosen:
        models.models.activated.emit(models.models.count() - 1)
    assert chosen.args == ["/folder/mine.pth"]
    assert models.models.currentText() == "mine.pth"


def test_giving_up_the_file_dialog_changes_nothing(models, qtbot, monkeypatch):
    monkeypatch.setattr(
        "napari_fedsam.widgets.model_section.QFileDialog.getOpenFileName", lambda *_, **__: ("", "")
    )
    models.models.setCurrentIndex(models.models.count() - 1)
    with qtbot.assertNotEmitted(models.model_chosen):
        models.models.activated.emit(models.models.count() - 1)
    assert models.models.currentData() == SITE_MODEL


def test_progress_is_shown_while_something_runs(models):
    models.set_activity("fetching the model", 0.25)
    assert models.progress.isVisibleTo(models)
    assert models.progress.value() == 25
    models.set_activity("encoding the slice")
    assert models.progress.maximum() == 0
    models.set_activity("")
    assert not models.progress.isVisibleTo(models)
