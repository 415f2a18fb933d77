"""A site's update: what it starts from, and how it is rounded and hidden in noise."""

import pytest
import torch
from flwr.app import RecordDict
from safetensors.torch import load_file

from napari_fedsam.federation import round_work
from napari_fedsam.federation.client_app import app
from napari_fedsam.federation.errors import ReplyCode
from napari_fedsam.federation.in_process import InProcessGrid
from napari_fedsam.federation.messages import config_record
from napari_fedsam.federation.packed_parameters import digest_of, unpack_parameters
from napari_fedsam.federation.privacy_ledger import PrivacyLedger
from napari_fedsam.federation.site_state import Phase
from napari_fedsam.federation.site_status import SiteStatus
from napari_fedsam.personalization.federation_options import FederationOptions, PrivacyOptions
from napari_fedsam.training.update_rounding import expand_update


def test_a_site_trains_on_from_what_it_has_judged(
    site, recipe, ask, add_cases, newest_version, request
):
    add_cases(site.site)
    ask("train")
    ask("evaluate")
    begun = request.getfixturevalue("no_training")
    grid = InProcessGrid(app, {2: site.site})

    def answer(shared):
        content = {"config": config_record(recipe.hash, 2, digest=digest_of(shared))}
        message = grid.create_message(RecordDict(content), "train", 2, "2")
        (reply,) = grid.send_and_receive([message])
        return reply

    judged = load_file(newest_version(site) / "shared.safetensors")
    assert not answer(judged).has_error()
    assert digest_of(begun.pop()) == digest_of(judged)
    other = {name: value + 1 for name, value in judged.items()}
    assert answer(other).error.reason == ReplyCode.PARAMETERS_MISSING
    assert not begun
    status = SiteStatus.read(site.status)
    assert status.phase is Phase.WAITING
    assert "it asked for them" in status.message


def test_a_rounded_update_is_what_training_changed_and_the_rest_comes_later(
    site, ask, recipe, start, add_cases
):
    add_cases(site.site)
    exact, exact_payload = ask("train")
    rounding = recipe.model_copy(update={"federation": FederationOptions(precision="int8")})
    rounding.write(site.recipe)
    coarse, coarse_payload = ask("train", recipe_hash=rounding.hash)
    assert len(coarse_payload) < 0.35 * len(exact_payload)

    def arrays(reply):
        return unpack_parameters(reply.content.array_records["shared"])

    arrived, trained = expand_update(arrays(coarse)), arrays(exact)
    left_over = load_file(site.left_over)
    for name, before in start[0].items():
        wanted = trained[name] - before
        # The steps of training are the same to the last bits only.
        torch.testing.assert_close(arrived[name] + left_over[name], wanted, rtol=1e-3, atol=1e-5)


def test_a_site_with_noise_of_its_own_sends_no_exact_update(
    site, ask, recipe, add_cases, monkeypatch
):
    add_cases(site.site)
    asked = []
    monkeypatch.setattr(
        round_work,
        "privatise",
        lambda _trained, received, options: (asked.append(options), received)[1],
    )
    privacy = PrivacyOptions(noise="local", clipping_norm=1, noise_multiplier=1)
    noisy = recipe.model_copy(update={"federation": FederationOptions(privacy=privacy)})
    noisy.write(site.recipe)
    reply, _ = ask("train", recipe_hash=noisy.hash)
    assert reply.has_content()
    assert asked == [privacy]
    assert PrivacyLedger.read(site.privacy_ledger).updates == {noisy.hash: 1}


@pytest.mark.parametrize("ledger", ['{"updates": {"HASH": 3}}', '{"updates": {"HASH": -1}}', "{"])
def test_a_site_makes_no_more_updates_with_noise_than_it_agreed_to(
    site, ask, recipe, add_cases, monkeypatch, ledger
):
    add_cases(site.site)
    privacy = PrivacyOptions(noise="local", clipping_norm=1, noise_multiplier=1)
    federation = FederationOptions(privacy=privacy)
    noisy = recipe.model_copy(update={"federation": federation, "rounds": 3})
    noisy.write(site.recipe)
    site.privacy_ledger.write_text(ledger.replace("HASH", noisy.hash))
    monkeypatch.setattr(round_work, "model_in_training", None)
    reply, _ = ask("train", recipe_hash=noisy.hash)
    assert reply.error.reason == ReplyCode.PRIVACY_SPENT
    status = SiteStatus.read(site.status)
    assert status.phase is Phase.WAITING
    assert "with noise" in status.message
