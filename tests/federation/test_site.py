"""A site's own side, with real background processes but no coordinator to talk to."""

import socket
import subprocess
import sys

import psutil
import pytest

from napari_fedsam.federation.coordinator import Coordinator
from napari_fedsam.federation.coordinator_setup import Reach
from napari_fedsam.federation.errors import FederationError
from napari_fedsam.federation.processes import ProcessTable
from napari_fedsam.federation.site import Site
from napari_fedsam.federation.site_state import Phase
from napari_fedsam.federation.site_status import update_status


@pytest.fixture
def coordinator(tmp_path, recipe):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    coordinator = Coordinator(tmp_path / "coordinator")
    coordinator.init(recipe, Reach(port=port))
    return coordinator


@pytest.fixture
def site(tmp_path, coordinator, invite):
    site = Site(tmp_path / "site")
    site.import_invitation(invite(coordinator))
    yield site
    site.leave()


def test_a_new_site_is_offline_and_without_an_invitation(tmp_path):
    site = Site(tmp_path / "site")
    assert (site.state.phase, site.state.address, site.invitation) == (Phase.OFFLINE, "", None)
    assert not site.joined
    with pytest.raises(FederationError, match="no invitation"):
        site.join()


def test_the_public_key_is_one_line_and_stays_the_same(site):
    assert site.public_key.startswith("ecdsa-sha2-nistp384 ")
    assert Site(site.files.site).public_key == site.public_key
    assert "\n" not in site.public_key


def test_a_federation_with_other_program_code_is_not_joined(site, coordinator, invite):
    site.import_invitation(invite(coordinator, bundle_sha256="0" * 64))
    with pytest.raises(FederationError, match="another version"):
        site.join()
    assert ProcessTable(site.files.folder).records() == {}


def test_another_programs_status_is_read_without_disturbing_it(site):
    update_status(site.files.status, rounds_joined=4, dice_history=((3, 0.5),), round=3)
    again = Site(site.files.site)
    assert (again.state.rounds_joined, again.state.round) == (4, 3)
    assert again.state.dice_history == ((3, 0.5),)
    assert again.state.federation == "Test disc"


def alive(pids):
    found = []
    for pid in pids:
        try:
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                found.append(pid)
        except psutil.NoSuchProcess:
            continue
    return found


JOIN = """
import sys, time
from pathlib import Path
from napari_fedsam.federation.site import Site
site = Site(Path(sys.argv[1]))
site.join(detached=sys.argv[2] == "detached")
print("joined", flush=True)
for _ in sys.stdin:
    site.refresh()
"""


def program_that_joins(site, how):
    program = subprocess.Popen(
        [sys.executable, "-c", JOIN, str(site.files.site), how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert program.stdout.readline() == b"joined\n"
    program.stdout.close()
    return program


def is_held(site):
    try:
        site._take_lock()
    except FederationError:
        return True
    site._lock.release(force=True)
    return False


def pids_of(site):
    return [record.pid for record in ProcessTable(site.files.folder).records().values()]


@pytest.mark.federation
def test_two_programs_cannot_join_with_one_folder(site, wait_until):
    program = program_that_joins(site, "attached")
    with pytest.raises(FederationError, match="leave there first"):
        site.join()
    started = pids_of(site)
    assert len(alive(started)) == 2
    # Leaving works from any program.
    site.leave()
    assert alive(started) == []
    program.communicate(timeout=60)
    assert program.returncode == 0


@pytest.mark.federation
def test_closing_the_program_leaves(site):
    program = program_that_joins(site, "attached")
    started = pids_of(site)
    program.communicate(timeout=60)
    assert alive(started) == []
    assert Site(site.files.site).state.phase is Phase.OFFLINE


@pytest.mark.federation
def test_killing_the_program_ends_the_background_processes_too(site, wait_until):
    program = program_that_joins(site, "attached")
    started = pids_of(site)
    program.kill()
    program.communicate()
    wait_until(lambda: alive(started) == [], what="the background processes noticed")
    site.join()
    assert len(alive(pids_of(site))) == 2


@pytest.mark.federation
def test_a_detached_join_outlives_its_program_and_keeps_the_folder(site, wait_until):
    program = program_that_joins(site, "detached")
    program.communicate(timeout=60)
    started = pids_of(site)
    assert len(alive(started)) == 2

    wait_until(lambda: is_held(site), what="the node holds the folder")
    with pytest.raises(FederationError, match="leave there first"):
        site.join()
    site.leave()
    assert alive(started) == []


@pytest.mark.federation
def test_closing_a_program_does_not_end_what_another_has_joined_since(site, wait_until):
    window = program_that_joins(site, "attached")
    site.leave()
    # As the window does again and again.
    window.stdin.write(b"look\n")
    window.stdin.flush()
    wait_until(lambda: not is_held(site), what="the window has let go of the folder")
    program_that_joins(site, "detached").communicate(timeout=60)
    started = pids_of(site)
    window.communicate(timeout=60)
    assert len(alive(started)) == 2


@pytest.mark.federation
def test_joining_twice_changes_nothing(site):
    site.join()
    started = pids_of(site)
    site.join()
    assert pids_of(site) == started


@pytest.mark.federation
def test_the_end_of_a_process_is_noticed_and_followed(site):
    site.join()
    lines = []
    psutil.Process(ProcessTable(site.files.folder).records()["supernode"].pid).kill()
    site.follow(lines.append)
    assert lines[-1].startswith("error: ")
    assert "join again" in lines[-1]
