import json
import ssl

import pytest

from napari_fedsam.federation.bundle import bundle_hash
from napari_fedsam.federation.coordinator import Coordinator
from napari_fedsam.federation.coordinator_setup import Reach
from napari_fedsam.federation.errors import FederationError
from napari_fedsam.federation.invitation import Invitation
from napari_fedsam.federation.invitation_words import invitation_in_words
from napari_fedsam.federation.site import Site
from napari_fedsam.federation.site_files import SiteFiles
from napari_fedsam.personalization.recipe import Recipe


@pytest.fixture
def coordinator(tmp_path, recipe):
    coordinator = Coordinator(tmp_path / "coordinator")
    reach = Reach("fed.hospital.example", 9443)
    coordinator.init(recipe, reach, contact="Dr Example, +49 30 123")
    return coordinator


@pytest.fixture
def invitation(coordinator):
    return coordinator.invite("Hospital A")


def test_an_invitation_comes_back_as_it_was(coordinator, invitation):
    assert invitation.address == "fed.hospital.example:9443"
    assert invitation.bundle_sha256 == bundle_hash()
    again = Invitation.read(coordinator.invitation_path("Hospital A"))
    assert again == invitation
    assert again.fingerprint == invitation.fingerprint
    assert again.recipe.hash == invitation.recipe.hash


def test_an_invitation_holds_no_secret(coordinator, invitation):
    text = coordinator.invitation_path("Hospital A").read_text()
    assert "PRIVATE" not in text
    assert str(coordinator.folder) not in text


def test_importing_writes_what_the_background_processes_read(tmp_path, invitation, recipe):
    site = Site(tmp_path / "site")
    site.import_invitation(invitation)
    files = SiteFiles(tmp_path / "site")
    assert Invitation.read(files.invitation) == invitation == site.invitation
    assert Recipe.read(files.recipe).hash == recipe.hash
    ssl.create_default_context(cafile=str(files.authority))
    assert site.state.federation == "Test disc"


CHANGES = {
    "federation": "Another",
    "site": "Hospital B",
    "address": "evil.example:9443",
    "contact": "call me",
    "issued": "2020-01-01T00:00:00Z",
    "authority": "-----BEGIN CERTIFICATE-----\nxx\n-----END CERTIFICATE-----\n",
    "bundle_sha256": "0" * 64,
}


@pytest.mark.parametrize("field", CHANGES)
def test_any_change_breaks_the_signature_and_changes_the_fingerprint(
    tmp_path, coordinator, invitation, field
):
    path = coordinator.invitation_path("Hospital A")
    content = json.loads(path.read_text())
    content[field] = CHANGES[field]
    path.write_text(json.dumps(content))
    with pytest.raises(FederationError, match="was changed after"):
        Invitation.read(path)
    changed = Invitation.model_validate(content)
    assert changed.fingerprint != invitation.fingerprint
    with pytest.raises(FederationError, match="was changed after"):
        Site(tmp_path / "site").import_invitation(changed)
    assert not SiteFiles(tmp_path / "site").invitation.exists()


def test_another_seed_in_the_recipe_breaks_the_signature(coordinator, invitation):
    recipe = invitation.recipe.model_copy(update={"seed": 99})
    with pytest.raises(FederationError, match="was changed after"):
        invitation.model_copy(update={"recipe": recipe}).check_signature()


@pytest.mark.parametrize("signature", ["", "AAAA", "no base64!"])
def test_a_missing_or_wrong_signature_is_refused(invitation, signature):
    with pytest.raises(FederationError, match="was changed after"):
        invitation.model_copy(update={"signature": signature}).check_signature()


def test_a_signature_by_another_key_is_refused_and_another_signer_is_seen(
    tmp_path, recipe, invitation, coordinator
):
    other = Coordinator(tmp_path / "other")
    other.init(recipe)
    forged = other.invite("Hospital A")
    with pytest.raises(FederationError, match="was changed after"):
        invitation.model_copy(update={"signature": forged.signature}).check_signature()
    assert not invitation.same_coordinator(forged)
    assert invitation.same_coordinator(coordinator.invite("Hospital B"))
    assert "another coordinator" in forged.replaces(invitation)
    assert invitation.address in forged.replaces(invitation)
    assert invitation.replaces(coordinator.invite("Hospital B")) == invitation.replaces(None) == ""


@pytest.mark.parametrize(
    "change",
    [
        {"address": "https://fed.hospital.example"},
        {"address": "no-port"},
        {"bundle_sha256": "abc"},
        {"authority": "-----BEGIN PRIVATE KEY-----"},
        {"federation": ""},
        {"site": "../../evil"},
        {"more": 1},
    ],
)
def test_an_invitation_that_cannot_work_is_refused_in_words(tmp_path, invitation, change):
    path = tmp_path / "sent.json"
    path.write_text(json.dumps({**json.loads(invitation.model_dump_json()), **change}))
    with pytest.raises(FederationError, match=r"sent\.json is not an invitation"):
        Invitation.read(path)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]"])
def test_what_is_no_invitation_is_refused_in_words(tmp_path, content):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(FederationError, match=r"x\.json is not an invitation"):
        Invitation.read(tmp_path / "x.json")


def test_a_missing_invitation_says_whom_to_ask(tmp_path):
    with pytest.raises(FederationError, match="ask the coordinator"):
        Invitation.read(tmp_path / "invitation.json")
    with pytest.raises(FederationError, match="cannot be read"):
        Invitation.read(tmp_path)


def test_a_federation_with_other_program_code_is_refused(invitation):
    invitation.check_runs_here()
    other = invitation.model_copy(update={"bundle_sha256": "0" * 64})
    with pytest.raises(FederationError, match="another version"):
        other.check_runs_here()


def test_the_words_tell_what_leaves_with_whom_how_often_and_how_private(invitation):
    words = invitation_in_words(invitation)
    assert "fed.hospital.example:9443 (contact: Dr Example, +49 30 123)" in words["With whom"]
    assert words["How often"].startswith("10 rounds are planned, each with at least 2 sites")
    assert words["What for"].startswith("disc; ")
    assert "exact update" in words["Privacy"]
