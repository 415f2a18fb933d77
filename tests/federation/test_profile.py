import ssl

import pytest

from napari_fedsam.federation.bundle import bundle_hash
from napari_fedsam.federation.coordinator import Coordinator
from napari_fedsam.federation.errors import FederationError
from napari_fedsam.federation.profile import SiteProfile
from napari_fedsam.federation.site_files import SiteFiles
from napari_fedsam.personalization.recipe import Recipe


@pytest.fixture
def coordinator(tmp_path, recipe):
    coordinator = Coordinator(tmp_path / "coordinator")
    coordinator.init(recipe, host="fed.hospital.example", port=9443)
    return coordinator


def test_a_profile_comes_back_as_it_was(tmp_path, coordinator):
    profile = coordinator.profile
    assert profile.address == "fed.hospital.example:9443"
    assert profile.bundle_sha256 == bundle_hash()
    profile.write(tmp_path / "sent.json")
    again = SiteProfile.read(tmp_path / "sent.json")
    assert again == profile
    assert again.recipe.hash == profile.recipe.hash


def test_a_profile_holds_no_secret(coordinator):
    text = (coordinator.folder / "site-profile.json").read_text()
    assert "PRIVATE" not in text
    assert str(coordinator.folder) not in text


def test_installing_writes_what_the_background_processes_read(tmp_path, coordinator, recipe):
    coordinator.profile.install(tmp_path / "site")
    files = SiteFiles(tmp_path / "site")
    assert SiteProfile.read(files.profile) == coordinator.profile
    assert Recipe.read(files.recipe).hash == recipe.hash
    ssl.create_default_context(cafile=str(files.authority))


@pytest.mark.parametrize(
    "change",
    [
        {"address": "https://fed.hospital.example"},
        {"address": "no-port"},
        {"bundle_sha256": "abc"},
        {"authority": "-----BEGIN PRIVATE KEY-----"},
        {"federation": ""},
    ],
)
def test_a_profile_that_cannot_work_is_refused_in_words(tmp_path, coordinator, change):
    path = tmp_path / "sent.json"
    coordinator.profile.model_copy(update=change).write(path)
    with pytest.raises(FederationError, match=r"sent\.json is not a federation profile"):
        SiteProfile.read(path)


def test_a_missing_profile_says_whom_to_ask(tmp_path):
    with pytest.raises(FederationError, match="ask the coordinator"):
        SiteProfile.read(tmp_path / "profile.json")


def test_a_federation_with_other_program_code_is_refused(coordinator):
    coordinator.profile.check_runs_here()
    other = coordinator.profile.model_copy(update={"bundle_sha256": "0" * 64})
    with pytest.raises(FederationError, match="another version"):
        other.check_runs_here()


def test_a_coordinator_is_made_once(tmp_path, coordinator, recipe):
    with pytest.raises(FederationError, match="holds a coordinator already"):
        coordinator.init(recipe)
    with pytest.raises(FederationError, match="holds no coordinator"):
        _ = Coordinator(tmp_path / "elsewhere").settings


def test_a_coordinator_that_is_not_running_says_so(coordinator):
    status = coordinator.status()
    assert not status.running
    assert status.waits_for == "the coordinator is not running"
    assert (status.sites, status.rounds, status.minimum_sites) == ({}, 0, 2)
