import re
from xml.etree import ElementTree

import pytest

from napari_fedsam.federation.checkpoints import CheckpointStore
from napari_fedsam.federation.coordinator import Coordinator
from napari_fedsam.federation.coordinator_report import released_rounds, write_report
from napari_fedsam.federation.errors import FederationError
from napari_fedsam.federation.privacy import epsilon_spent
from napari_fedsam.federation.round_result import RoundResult, SiteRound
from napari_fedsam.personalization.federation_options import FederationOptions, PrivacyOptions

PRIVACY = PrivacyOptions(noise="central", clipping_norm=1, noise_multiplier=2)


def site(name, dice=0.8, code="", norm=1.0):
    return SiteRound(
        node_id=name,
        name=name,
        train_asked=True,
        evaluate_asked=True,
        cases=4,
        loss=0.5,
        norm=norm,
        code=code,
        held_out=2 if dice is not None else 0,
        dice={} if dice is None else {"none": dice, "box": dice},
        bytes_sent=2_000_000,
        bytes_received=1_000_000,
    )


@pytest.fixture
def coordinator(tmp_path, recipe):
    coordinator = Coordinator(tmp_path / "coordinator")
    options = FederationOptions(weights="equal", privacy=PRIVACY)
    coordinator.init(recipe.model_copy(update={"federation": options}), name="Discs & <more>")
    return coordinator


def record(coordinator, *rounds):
    store = CheckpointStore(coordinator.folder)
    for number, sites in enumerate(rounds, start=1):
        result = RoundResult(
            round=number,
            recipe_hash=coordinator.recipe.hash,
            aggregated=True,
            sites=sites,
            complete=True,
            seconds=12,
        )
        store.save(result, None)


def test_the_report_tells_dice_participation_bytes_norms_left_out_and_privacy(
    tmp_path, coordinator
):
    record(
        coordinator,
        (site("Anna's", 0.6), site("<b>Bert", 0.7), site("Carl", None, "no-answer", None)),
        (site("Anna's", 0.9), site("<b>Bert", 0.8), site("Carl", 0.1, "unusual-norm", 500.0)),
    )
    text = write_report(coordinator, tmp_path / "report.html").read_text()
    assert "<title>Discs &amp; &lt;more&gt;: 2 rounds</title>" in text
    assert "<b>Bert" not in text
    assert "Best round: 1" in text
    assert "<td>1</td><td>Carl</td><td>no-answer: no answer came before" in text
    assert "<td>2</td><td>Carl</td><td>unusual-norm: the update was far larger" in text
    assert f"epsilon {epsilon_spent(PRIVACY, 2):.3g}." in text
    plots = re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL)
    assert len(plots) == 5
    for plot in plots:
        ElementTree.fromstring(plot)  # noqa: S314 - we have just drawn it
    assert "http-equiv" not in text
    assert "<script" not in text
    assert "<img" not in text


def test_a_round_without_dice_is_reported_too(tmp_path, coordinator):
    record(coordinator, (site("A", None), site("B", None)))
    text = write_report(coordinator, tmp_path / "report.html").read_text()
    assert "Best round" not in text
    assert "No update was left out." in text


def test_no_round_is_no_report(tmp_path, coordinator):
    with pytest.raises(FederationError, match="no round was run yet"):
        write_report(coordinator, tmp_path / "report.html")


def test_privacy_is_spent_by_what_was_released():
    silent = RoundResult(round=1, recipe_hash="", sites=(site("A", norm=None, code="no-answer"),))
    unused = RoundResult(round=2, recipe_hash="", sites=(site("A"),))
    used = unused.model_copy(update={"aggregated": True})
    local = PRIVACY.model_copy(update={"noise": "local"})
    assert [released_rounds([each], local) for each in (silent, unused, used)] == [0, 1, 1]
    assert [released_rounds([each], PRIVACY) for each in (silent, unused, used)] == [0, 0, 1]
