"""Several federations on one machine: a profile each."""

import socket

import pytest

from napari_fedsam.cases.case import Structure
from napari_fedsam.federation.coordinator import Coordinator
from napari_fedsam.federation.coordinator_setup import Reach
from napari_fedsam.federation.errors import FederationError
from napari_fedsam.federation.invitation import Invitation
from napari_fedsam.federation.profiles import Profiles
from napari_fedsam.federation.site import Site
from napari_fedsam.federation.site_state import Phase
from napari_fedsam.personalization.personalised_model import build_personalised_model
from napari_fedsam.personalization.recipe import Recipe
from napari_fedsam.training.profile_folder import active_key
from napari_fedsam.training.versions import VersionStore


@pytest.fixture(scope="module")
def coordinators(tmp_path_factory, recipe):
    """Two coordinators that nothing listens for, by the names of their federations."""
    made = {}
    for name in ("Spleen on CT", "Leber (Phase 2)"):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        made[name] = Coordinator(tmp_path_factory.mktemp("coordinator"))
        made[name].init(recipe.model_copy(update={"name": name}), Reach(port=port))
    return made


@pytest.fixture
def spleen(coordinators):
    return coordinators["Spleen on CT"].invite("here")


@pytest.fixture
def liver(coordinators):
    return coordinators["Leber (Phase 2)"].invite("here")


@pytest.fixture
def home(tmp_path):
    return tmp_path / "home"


@pytest.fixture
def both(home, spleen, liver):
    """Two federations, the second one in use."""
    profiles = Profiles(home)
    profiles.import_invitation(spleen)
    profiles.import_invitation(liver)
    return profiles


def names(profiles):
    return [profile.name for profile in profiles.all()]


def contents(folder):
    """Return all files below a folder but the lock and pointer of all profiles."""
    return {
        path.relative_to(folder): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".lock"
    }


def keep_version(site, number=1):
    recipe = Recipe.read(site.files.recipe)
    model = build_personalised_model(recipe)
    store = VersionStore(site.files.versions)
    version = store.save(
        model.shared_state(), model.local_state(), round=number, recipe=recipe, dice={}
    )
    store.activate(version.number)


def test_a_machine_in_no_federation_has_one_profile_without_a_name(home):
    profiles = Profiles(home)
    assert names(profiles) == [""]
    assert profiles.active.files.profile_folder == home
    assert profiles.taking_part() is None
    assert not home.exists()


def test_the_home_of_a_single_federation_is_the_first_profile_as_it_lies(home, spleen):
    site = Site(home)
    site.import_invitation(spleen)
    key, before = site.public_key, contents(home)
    profiles = Profiles(home)
    assert names(profiles) == ["Spleen on CT"]
    assert profiles.active.files.invitation == home / "federation" / "invitation.json"
    assert profiles.active.files.versions == home / "versions"
    assert Site(home).public_key == key
    assert contents(home) == before


def test_a_further_federation_gets_a_profile_and_touches_nothing_of_the_first(home, spleen, liver):
    profiles = Profiles(home)
    first = profiles.import_invitation(spleen)
    site = Site(home)
    site.change_settings(paused=True)
    keep_version(site)
    key, before = site.public_key, contents(home)
    second = profiles.import_invitation(liver)
    assert names(profiles) == ["Spleen on CT", "Leber (Phase 2)"]
    assert second.files.profile_folder.parent == home / "profiles"
    assert first.files.cases == second.files.cases == home / "cases"
    other = Site(home)
    assert other.state.federation == "Leber (Phase 2)"
    assert other.public_key != key
    assert not other.settings.paused
    assert other.state.active_version == 0
    after = contents(home)
    assert {path: after[path] for path in before} == before


def test_one_is_in_use_and_every_program_sees_it(home, both):
    assert both.active.name == "Leber (Phase 2)"
    assert Profiles(home).use("spleen on ct").name == "Spleen on CT"
    assert both.active.name == "Spleen on CT"
    assert Site(home).state.federation == "Spleen on CT"
    with pytest.raises(FederationError, match=r"no federation 'Kidney'; there is 'Spleen on CT', "):
        both.use("Kidney")
    assert both.active.name == "Spleen on CT"


@pytest.mark.parametrize("pointer", ["gone-12345678", "../../elsewhere", ""])
def test_a_pointer_to_nothing_means_the_first(home, both, pointer):
    (home / "profiles" / "active").write_text(pointer)
    assert active_key(home) == ""
    assert both.active.name == "Spleen on CT"


def test_importing_again_renews_the_federation_of_that_name(home, both, coordinators, invite):
    both.use("Spleen on CT")
    renewed = invite(coordinators["Leber (Phase 2)"], contact="somebody else")
    key = Site(home, both.named("Leber (Phase 2)").key).public_key
    imported = both.import_invitation(renewed)
    assert Invitation.read(imported.files.invitation).contact == "somebody else"
    assert len(both.all()) == 2
    assert Site(home, imported.key).public_key == key
    assert both.known(renewed) == renewed


def test_an_invitation_is_not_put_into_another_federations_profile(home, both, liver):
    site = Site(home, "")
    with pytest.raises(FederationError, match="'Spleen on CT', to which this profile belongs"):
        site.import_invitation(liver)
    assert site.invitation.federation == "Spleen on CT"


def test_names_that_differ_in_signs_alone_have_profiles_of_their_own(
    home, spleen, liver, coordinators, invite
):
    profiles = Profiles(home)
    profiles.import_invitation(spleen)
    wanted = ["Leber Phase 2", "Leber (Phase 2)", "肝臓", "脾臓"]
    for name in wanted:
        profiles.import_invitation(invite(coordinators["Leber (Phase 2)"], federation=name))
    assert len({profile.key for profile in profiles.all()}) == 5
    assert set(names(profiles)) == {"Spleen on CT", *wanted}


def test_a_damaged_invitation_leaves_the_others_usable_and_is_mended_by_importing(
    both, liver, coordinators
):
    broken = both.named("Leber (Phase 2)").files.invitation
    broken.write_text("{")
    assert names(both) == ["Spleen on CT", "damaged"]
    assert both.use("Spleen on CT").name == "Spleen on CT"
    assert both.known(liver) is None
    both.import_invitation(liver)
    assert names(both) == ["Spleen on CT", "Leber (Phase 2)"]


def test_a_site_says_what_is_wrong_with_its_invitation(home, spleen):
    profile = Profiles(home).import_invitation(spleen)
    whole = profile.files.invitation.read_text()
    profile.files.invitation.write_text("{")
    site = Site(home, profile.key)
    assert site.state.phase is Phase.OFFLINE
    assert "ask the coordinator for a new one" in site.state.message
    assert site.state.address == ""
    profile.files.invitation.write_text(whole)
    site.refresh()
    assert (site.state.message, site.state.federation) == ("", spleen.federation)


def test_an_import_that_was_broken_off_is_no_federation(home, spleen, liver):
    profiles = Profiles(home)
    profiles.import_invitation(spleen)
    half = profiles._files_for(liver.federation)
    half.create()
    half.recipe.write_text("{}")
    assert names(profiles) == ["Spleen on CT"]
    assert profiles.import_invitation(liver).files == half


def test_removing_a_federation_keeps_cases_the_others_and_the_record(both, home, add_cases):
    store = add_cases(home)
    gone = both.named("Leber (Phase 2)").files
    gone.audit.write_text('{"a line": 1}\n')
    keep_version(Site(home, ""))
    first = contents(home / "federation"), contents(home / "versions")
    kept = both.remove("Leber (Phase 2)")
    assert kept.read_text() == '{"a line": 1}\n'
    assert names(both) == ["Spleen on CT"]
    assert not gone.profile_folder.exists()
    assert both.active.name == "Spleen on CT"
    assert (contents(home / "federation"), contents(home / "versions")) == first
    assert len(store.records()) == 3


def test_removing_the_first_federation_leaves_the_others_in_their_places(both, home, add_cases):
    store = add_cases(home)
    keep_version(Site(home, ""))
    other = both.named("Leber (Phase 2)")
    keep_version(Site(home, other.key))
    before = contents(other.files.profile_folder)
    both.use("Spleen on CT")
    assert both.remove("Spleen on CT") is None
    assert names(both) == ["Leber (Phase 2)"]
    assert both.active == other
    assert contents(other.files.profile_folder) == before
    assert not (home / "federation").exists()
    assert not (home / "versions").exists()
    assert len(store.records()) == 3


def test_after_the_last_one_was_removed_a_machine_is_as_new(both, home, spleen):
    for name in names(both):
        both.remove(name)
    assert names(both) == [""]
    assert Site(home).state.address == ""
    assert both.import_invitation(spleen).files.profile_folder == home
    with pytest.raises(FederationError, match="no federation 'Leber"):
        both.remove("Leber (Phase 2)")


def test_a_removal_that_was_broken_off_is_finished(both, home):
    left = home / "profiles" / ".removed-x" / "federation"
    left.mkdir(parents=True)
    (left / "invitation.json").write_text("{}")
    assert names(both) == ["Spleen on CT", "Leber (Phase 2)"]
    both.remove("Leber (Phase 2)")
    assert not list((home / "profiles").glob(".removed-*"))


@pytest.mark.federation
def test_one_federation_at_a_time_takes_part(both, home, spleen, liver):
    first, second = Site(home, ""), Site(home, both.named("Leber (Phase 2)").key)
    first.join()
    try:
        assert both.taking_part().name == "Spleen on CT"
        with pytest.raises(FederationError, match="'Spleen on CT' takes part on this machine now"):
            second.join()
        assert second.state.phase is Phase.OFFLINE
        assert first.state.phase is Phase.CONNECTING
        with pytest.raises(FederationError, match="leave it before you remove it"):
            both.remove("Spleen on CT")
        with pytest.raises(FederationError, match="leave it before importing"):
            both.import_invitation(spleen)
        # What is not at work can be changed meanwhile, and the one at work stays in use.
        both.use("Spleen on CT")
        both.import_invitation(liver)
        assert both.active.name == "Spleen on CT"
        both.remove("Leber (Phase 2)")
        first.refresh()
        assert first.state.phase is Phase.CONNECTING
    finally:
        first.leave()
    assert both.taking_part() is None


@pytest.mark.federation
def test_the_lock_is_one_for_all_federations(both, home):
    """A program whose node has just died still holds the machine."""
    first, second = Site(home, ""), Site(home, both.named("Leber (Phase 2)").key)
    first._take_lock()
    assert first.holds_node
    with pytest.raises(FederationError, match="leave there first"):
        second.join()
    first.leave()
    second.join()
    assert second.holds_node
    second.leave()
    assert not second.holds_node


def test_structures_of_the_same_number_do_not_mix(both, home, add_cases, recipe):
    """Each federation counts from 1: a spleen must not train the liver."""
    from napari_fedsam.training.samples import samples_from_store

    store = add_cases(home)
    liver = Structure(value=1, name="liver", color="#00ff00")
    disc = Structure(value=7, name="DISC", color="#00ff00")
    assert (
        samples_from_store(store, recipe.model_copy(update={"structures": (liver,)}), "train") == []
    )
    moved = samples_from_store(store, recipe.model_copy(update={"structures": (disc,)}), "train")
    assert [sample.structure for sample in moved] == [7, 7]
