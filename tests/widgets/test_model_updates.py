"""The widget follows the site's model versions without a restart."""

import pytest

from napari_fedsam.cases.case import Structure
from napari_fedsam.personalization.personalised_model import build_personalised_model
from napari_fedsam.personalization.recipe import MethodOptions, Recipe
from napari_fedsam.training.versions import VersionStore

pytestmark = pytest.mark.window

RECIPE = Recipe(
    name="balls",
    structures=(
        Structure(value=1, name="ball", color="#ff8800"),
        Structure(value=2, name="ring", color="#0088ff"),
    ),
    options=MethodOptions(blocks=1, lora_rank=2, experts=2, expert_width=4, top_k=1),
)


def keep_round(site, number, *, passed=True) -> int:
    model = build_personalised_model(RECIPE)
    version = VersionStore(site / "versions").save(
        model.shared_state(),
        model.local_state(),
        round=number,
        recipe_hash=RECIPE.hash,
        dice={"none": 0.5},
        passed=passed,
    )
    return version.number


def activate_round(site, number) -> int:
    version = keep_round(site, number)
    VersionStore(site / "versions").activate(version)
    return version


@pytest.fixture
def site(tmp_path):
    folder = tmp_path / "site" / "federation"
    folder.mkdir(parents=True)
    RECIPE.write(folder / "recipe.json")
    return folder.parent


@pytest.fixture
def widget(make_widget, site):
    return make_widget(site)


def status(widget):
    return widget.model_section.status.text()


def test_the_recipes_structures_are_on_offer(widget):
    assert [each.name for each in widget.session.view.structures] == ["ball", "ring"]
    assert status(widget) == "LiteMedSAM: base model"
    assert not widget.prompt_section.buttons["propose"].isEnabled()


def test_a_new_version_is_taken_up_and_answers_the_same_prompts(ball, hands, widget, site, told):
    hands.click(34, 30)
    ask, base = widget.session.ask, widget.session.preview
    version = activate_round(site, 3)
    hands.qtbot.waitUntil(lambda: widget.session.model.version == version, timeout=30_000)
    hands.rest()
    assert told == ["Model updated to round 3"]
    assert status(widget) == "LiteMedSAM: personalised, round 3, this site"
    assert widget.session.ask == ask
    assert widget.session.preview is not base
    assert widget.session.preview.model.version == version
    hands.press("K")
    assert widget.store.records()[0].model == f"LiteMedSAM round 3 version {version}"


def test_a_personalised_model_proposes_by_key(ball, hands, widget, site):
    activate_round(site, 1)
    hands.qtbot.waitUntil(lambda: widget.session.can_propose, timeout=30_000)
    hands.press("H")
    assert widget.session.ask.proposal
    assert widget.session.preview is not None
    hands.press("Shift+K")
    (record,) = widget.store.records()
    assert record.absent
    assert record.prompts[0]["kind"] == "none"
    assert "false_positive_pixels" in record.prompts[0]


def test_proposing_on_every_slice(ball, hands, widget, site):
    activate_round(site, 1)
    hands.qtbot.waitUntil(lambda: widget.session.can_propose, timeout=30_000)
    widget.prompt_section.auto_propose.setChecked(True)
    hands.rest()
    hands.press("N")
    assert widget.session.ask.proposal
    assert widget.session.answering.is_current


def test_one_click_goes_back(hands, widget, site, told):
    first = activate_round(site, 1)
    hands.qtbot.waitUntil(lambda: widget.session.model.version == first, timeout=30_000)
    hands.rest()
    widget.model_section.back.click()
    hands.qtbot.waitUntil(lambda: not widget.session.model.is_personalised, timeout=30_000)
    hands.rest()
    assert status(widget) == "LiteMedSAM: base model"
    assert told == ["Model updated to round 1", "Back to the base model"]


def test_a_model_that_waits_for_a_yes_is_used_only_after_it(hands, widget, site, told):
    passed = keep_round(site, 1)
    keep_round(site, 2, passed=False)
    yes = widget.model_section.use_newest
    hands.qtbot.waitUntil(yes.isVisible, timeout=30_000)
    hands.rest()
    assert status(widget) == "LiteMedSAM: base model"
    assert yes.text() == "Use the model of round 1"
    assert "did no worse" in yes.toolTip()
    yes.click()
    hands.qtbot.waitUntil(lambda: widget.session.model.version == passed, timeout=30_000)
    hands.rest()
    assert told == ["Model updated to round 1"]
    # What came later is on offer, with the reason why it was not taken up.
    hands.qtbot.waitUntil(lambda: "did worse" in yes.toolTip(), timeout=30_000)


def test_a_chosen_base_model_stays(hands, widget, site):
    widget.model_section.model_chosen.emit("lite_medsam")
    hands.rest()
    activate_round(site, 1)
    widget._refresh()
    hands.rest()
    assert not widget.session.model.is_personalised


def test_a_damaged_version_is_told_once_and_the_model_stays(hands, widget, site, told):
    number = activate_round(site, 1)
    path = site / "versions" / f"{number:04}" / "shared.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    hands.qtbot.waitUntil(lambda: bool(told), timeout=30_000)
    hands.rest()
    widget._refresh()
    hands.rest()
    assert len(told) == 1
    assert status(widget) == "LiteMedSAM: base model"


def test_an_unreadable_checkpoint_is_told_and_the_model_stays(hands, widget, told, tmp_path):
    path = tmp_path / "broken.pth"
    path.write_bytes(b"no checkpoint")
    widget.model_section.model_chosen.emit(str(path))
    hands.rest()
    assert "broken.pth" in told[0]
    assert status(widget) == "LiteMedSAM: base model"
    assert widget.model_section.models.currentData() == "site"
