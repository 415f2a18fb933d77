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
        recipe=RECIPE,
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
    assert told == ["Model updated to LiteMedSAM: personalised, round 3, this site"]
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


def test_proposing_on_every_slice(hands, widget, site, request):
    box = widget.prompt_section.auto_propose
    activate_round(site, 1)
    hands.qtbot.waitUntil(lambda: widget.session.can_propose, timeout=30_000)
    assert not box.isEnabled()
    # A box that was ticked before stays so while no scan is open.
    box.setChecked(True)
    assert widget.session.ask.is_empty
    box.setChecked(False)
    request.getfixturevalue("ball")
    assert box.isEnabled()
    box.setChecked(True)
    hands.rest()
    hands.press("N")
    assert widget.session.ask.proposal
    assert widget.session.answering.is_current
    assert not widget.session.has_work


def test_one_click_goes_back(hands, widget, site, told):
    first = activate_round(site, 1)
    hands.qtbot.waitUntil(lambda: widget.session.model.version == first, timeout=30_000)
    hands.rest()
    widget.model_section.back.click()
    hands.qtbot.waitUntil(lambda: not widget.session.model.is_personalised, timeout=30_000)
    hands.rest()
    assert status(widget) == "LiteMedSAM: base model"
    assert told == [
        "Model updated to LiteMedSAM: personalised, round 1, this site",
        "Back to the base model",
    ]


def test_a_model_that_waits_for_a_yes_is_used_only_after_it(hands, widget, site, told):
    passed = keep_round(site, 1)
    keep_round(site, 2, passed=False)
    yes = widget.model_section.use_newest
    hands.qtbot.waitUntil(yes.isVisible, timeout=30_000)
    hands.rest()
    assert status(widget) == "LiteMedSAM: base model"
    assert yes.text() == "Use the newer model: round 1, this site"
    assert "did no worse" in yes.toolTip()
    yes.click()
    hands.qtbot.waitUntil(lambda: widget.session.model.version == passed, timeout=30_000)
    hands.rest()
    assert told == ["Model updated to LiteMedSAM: personalised, round 1, this site"]
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


def test_a_damaged_version_is_left_by_going_back(make_widget, hands_of, site, told):
    """It is in use when the window opens: the base model answers, and the site is followed."""
    activate_round(site, 1)
    damaged = activate_round(site, 2)
    (site / "versions" / f"{damaged:04}" / "shared.safetensors").write_bytes(b"")
    widget = make_widget(site)
    hands = hands_of(widget)
    hands.rest()
    assert ("damaged" in told[0], len(told)) == (True, 1)
    assert status(widget) == "LiteMedSAM: base model"
    assert widget.model_section.models.currentData() == "site"
    keep_round(site, 3)
    hands.qtbot.waitUntil(widget.model_section.use_newest.isVisible, timeout=30_000)
    widget.model_section.back.click()
    hands.qtbot.waitUntil(lambda: widget.session.model.round == 1, timeout=30_000)
    hands.rest()


def test_what_prevents_following_is_told_once(hands, widget, site, told):
    version = activate_round(site, 1)
    hands.qtbot.waitUntil(lambda: widget.session.model.version == version, timeout=30_000)
    hands.rest()
    told.clear()
    recipe = site / "federation" / "recipe.json"
    recipe.write_text("{")
    for _ in range(3):
        widget._refresh()
        hands.rest()
    assert len([text for text in told if "recipe.json is wrong" in text]) == 1


def test_beside_a_chosen_base_model_the_sites_newer_one_is_not_offered(hands, widget, site):
    yes = widget.model_section.use_newest
    keep_round(site, 1)
    hands.qtbot.waitUntil(yes.isVisible, timeout=30_000)
    widget.model_section.model_chosen.emit("lite_medsam")
    hands.rest()
    widget._refresh()
    hands.rest()
    assert not yes.isVisible()
    widget._models.use_newest()
    hands.qtbot.waitUntil(lambda: widget.session.model.round == 1, timeout=30_000)
    assert widget.model_section.models.currentData() == "site"


def test_an_unreadable_checkpoint_is_told_and_the_model_stays(hands, widget, told, tmp_path):
    path = tmp_path / "broken.pth"
    path.write_bytes(b"no checkpoint")
    widget.model_section.model_chosen.emit(str(path))
    hands.rest()
    assert "broken.pth" in told[0]
    assert status(widget) == "LiteMedSAM: base model"
    assert widget.model_section.models.currentData() == "site"
