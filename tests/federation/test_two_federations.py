"""One machine in two federations: two real SuperLinks, one node at a time."""

import contextlib
import socket

import pytest

from napari_fedsam.cases.case import Structure
from napari_fedsam.federation.audit import read_audit
from napari_fedsam.federation.coordinator import Coordinator
from napari_fedsam.federation.coordinator_setup import Reach
from napari_fedsam.federation.profiles import Profiles
from napari_fedsam.federation.site import Site
from napari_fedsam.federation.site_state import Phase
from napari_fedsam.personalization.personalised_model import build_personalised_model
from napari_fedsam.personalization.recipe import Recipe
from napari_fedsam.training.versions import VersionStore

pytestmark = [pytest.mark.federation, pytest.mark.slow]

NAMES = ("North", "South")


@pytest.fixture
def coordinators(tmp_path, recipe):
    """Two coordinators that run, by the names of their federations."""
    with contextlib.ExitStack() as running:
        made = {}
        for number, name in enumerate(NAMES):
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = probe.getsockname()[1]
            # The same structure has another number there.
            disc = Structure(value=1 + 4 * number, name="disc", color="#ff0000")
            changes = {"name": name, "seed": number, "minimum_sites": 1, "structures": (disc,)}
            coordinator = Coordinator(tmp_path / name)
            coordinator.init(recipe.model_copy(update=changes), Reach(port=port))
            coordinator.start()
            running.callback(coordinator.stop)
            made[name] = coordinator
        yield made


def contents(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def local_parameters(site):
    """Return the local parameters of a site's only version."""
    store = VersionStore(site.files.versions)
    (version,) = store.versions()
    model = build_personalised_model(Recipe.read(site.files.recipe))
    store.load_into(model, version)
    return model.local_state()


def train_in(coordinator, profiles, wait_until):
    """Switch to a federation, join, take part in a round, and leave."""
    name = coordinator.settings.federation
    site = Site(profiles.site, profiles.use(name).key)
    site.join(threads=1)
    try:
        wait_until(lambda: site.joined, what=f"{name} accepts the node")
        assert profiles.taking_part().name == name
        (result,) = coordinator.run(1, wait_seconds=300)
        assert (result.updates, result.cases) == (1, 2)
        site.refresh()
        assert site.state.phase is Phase.UP_TO_DATE
    finally:
        site.leave()
    return site


def test_switching_leaves_one_federation_and_joins_the_other(
    coordinators, tmp_path, add_cases, wait_until
):
    home = tmp_path / "a home"
    add_cases(home)
    profiles = Profiles(home)
    for coordinator in coordinators.values():
        profile = profiles.import_invitation(coordinator.invite("here"))
        coordinator.approve("here", Site(home, profile.key).public_key)

    north = train_in(coordinators["North"], profiles, wait_until)
    assert profiles.taking_part() is None
    before = contents(north.files.folder) | contents(north.files.versions)

    south = train_in(coordinators["South"], profiles, wait_until)
    assert coordinators["North"].status().sites == {"here": False}
    # Nothing of the first one was touched, and each trained on the same cases.
    assert contents(north.files.folder) | contents(north.files.versions) == before
    assert profiles.active.name == "South"
    for site in (north, south):
        assert [line.purpose for line in read_audit(site.files.audit)] == ["train", "evaluate"]
    local_north, local_south = local_parameters(north), local_parameters(south)
    assert local_north.keys() == local_south.keys()
    assert any(not local_north[name].equal(local_south[name]) for name in local_north)

    # On coming back the first one goes on where it was.
    profiles.use("North")
    again = Site(home)
    assert (again.state.rounds_joined, again.state.federation) == (1, "North")
    again.join(threads=1)
    try:
        wait_until(lambda: again.joined, what="North accepts the node again")
    finally:
        again.leave()
