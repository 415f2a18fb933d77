"""Training at this site alone, as a person starts, cancels and ends it in a window."""

import psutil
import pytest

from napari_fedsam.cases.case import NewCase, Structure
from napari_fedsam.cases.store import CaseStore
from napari_fedsam.personalization.recipe import MethodOptions, Recipe, TrainingOptions

pytestmark = pytest.mark.window

WAIT_MS = 600_000
BALL = Structure(value=2, name="ball", color="#ff8800")
RING = Structure(value=2, name="ring", color="#0088ff")


@pytest.fixture
def site(tmp_path):
    return tmp_path / "site"


@pytest.fixture
def keep(site, scene):
    """Return a function that keeps a case of a structure."""

    def accept(structure, split="train"):
        CaseStore(site / "cases").accept(
            NewCase(
                image=scene.image,
                mask=scene.ellipse,
                structure=structure,
                window=(0, 255),
                scan_key=f"{structure.name} {split}",
                split=split,
            )
        )

    return accept


@pytest.fixture
def agree(site):
    """Return a function that gives the site a federation's recipe."""

    def write(epochs):
        (site / "federation").mkdir(parents=True)
        Recipe(
            name="balls",
            structures=(BALL,),
            options=MethodOptions(blocks=1, lora_rank=2, experts=2, expert_width=4, top_k=1),
            training=TrainingOptions(epochs=epochs, local_share=0, augmentations=0),
        ).write(site / "federation" / "recipe.json")

    return write


@pytest.fixture
def started(make_widget, site, qtbot, training_children):
    """Return a function that opens the window and presses the button; ends training after it."""
    widgets = []

    def press():
        widget = make_widget(site)
        widgets.append(widget)
        widget.training_section.start.click()
        return widget

    yield press
    for widget in widgets:
        widget.shut_down()
    psutil.wait_procs(training_children(), timeout=WAIT_MS / 1000)


def test_training_here_is_shown_until_its_outcome_is_told(started, keep, agree, qtbot, told):
    keep(BALL)
    keep(BALL, split="val")
    agree(epochs=1)
    section = started().training_section
    assert section.progress.isVisibleTo(section)
    assert not section.start.isEnabled()
    qtbot.waitUntil(lambda: section.progress.value() > 0, timeout=WAIT_MS)
    assert section.progress.text().startswith("training ")
    qtbot.waitUntil(lambda: bool(section.outcome.text()), timeout=WAIT_MS)
    assert section.outcome.text().startswith("Trained on 1 case. On 1 held-out case: Dice without")
    assert section.outcome.isVisibleTo(section)
    assert not section.progress.isVisibleTo(section)
    assert section.start.isEnabled()
    assert not section.cancel.isEnabled()


def test_cancelled_training_can_start_again_and_ends_with_the_window(
    started, keep, agree, training_children, qtbot, told
):
    keep(BALL)
    agree(epochs=5000)
    widget = started()
    section = widget.training_section
    qtbot.waitUntil(lambda: section.progress.maximum() > 0, timeout=WAIT_MS)
    section.cancel.click()
    qtbot.waitUntil(section.start.isEnabled, timeout=WAIT_MS)
    assert not training_children()
    assert not section.progress.isVisibleTo(section)
    assert not section.cancel.isEnabled()
    assert section.outcome.text() == ""
    section.start.click()
    assert section.cancel.isEnabled()
    running = training_children()
    assert running
    widget.shut_down()
    assert psutil.wait_procs(running, timeout=WAIT_MS / 1000)[1] == []
    assert told == []


def test_structures_of_one_number_are_both_trained(
    started, keep, training_children, qtbot, site, told
):
    keep(BALL)
    keep(RING)
    section = started().training_section
    command = training_children()[0].cmdline()
    (recipe,) = (part for part in command if part.endswith("recipe.json"))
    assert {each.name for each in Recipe.read(site / recipe).structures} == {"ball", "ring"}
    section.cancel.click()
    qtbot.waitUntil(section.start.isEnabled, timeout=WAIT_MS)


def test_training_that_cannot_start_is_told(started, keep, site, told):
    keep(BALL)
    (site / "logs").write_text("")
    section = started().training_section
    assert len(told) == 1
    assert told[0].startswith(f"Training could not start, for {site / 'logs'} cannot be used")
    assert section.start.isEnabled()
    assert not section.cancel.isEnabled()
