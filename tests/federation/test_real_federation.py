"""Real SuperLink and SuperNodes on loopback, with TLS, registered keys and pinned bundles."""

import contextlib
import hashlib
import io
import signal
import socket
import subprocess
import sys
import threading
import zipfile

import httpx
import psutil
import pytest
from flwr.proto.fleet_pb2 import RegisterNodeFleetRequest
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supercore.primitives.asymmetric import generate_key_pairs, public_key_to_bytes
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from napari_fedsam.federation.audit import read_audit
from napari_fedsam.federation.bundle import build_bundle, bundle_hash
from napari_fedsam.federation.checkpoints import CheckpointStore
from napari_fedsam.federation.control import connect
from napari_fedsam.federation.coordinator import Coordinator
from napari_fedsam.federation.coordinator_setup import Reach
from napari_fedsam.federation.errors import FederationError
from napari_fedsam.federation.processes import OWNER_VARIABLE
from napari_fedsam.federation.site import Site
from napari_fedsam.federation.site_state import Phase
from napari_fedsam.training.versions import VersionStore

pytestmark = pytest.mark.federation


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def processes_of(site_or_coordinator_folder):
    mark = str(site_or_coordinator_folder.resolve())
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(OWNER_VARIABLE) == mark:
                found.append(process)
    return found


@pytest.fixture(scope="module")
def coordinator(tmp_path_factory, recipe):
    coordinator = Coordinator(tmp_path_factory.mktemp("a coordinator's folder"))
    coordinator.init(recipe, Reach(port=free_port()))
    coordinator.start()
    yield coordinator
    coordinator.stop()
    assert processes_of(coordinator.folder) == []


@pytest.fixture(scope="module")
def sites(tmp_path_factory, coordinator, invite, add_cases):
    """Two joined sites with cases."""
    sites = []
    for number, name in enumerate(["Hospital A", "Hospital B"]):
        site = Site(tmp_path_factory.mktemp("o'site of two words"))
        site.import_invitation(invite(coordinator, name))
        add_cases(site.files.site, seed=number)
        coordinator.approve(name, site.public_key)
        # Two sites share the processors here.
        site.join(threads=1)
        sites.append(site)
    yield sites
    for site in sites:
        site.leave()


@pytest.fixture
def lone_site(tmp_path, coordinator, invite):
    site = Site(tmp_path / "site")
    site.import_invitation(invite(coordinator))
    yield site
    site.leave()


def refreshed(site):
    site.refresh()
    return site.state


def test_what_a_site_sees_when_its_key_is_not_approved(lone_site, wait_until):
    lone_site.join()
    assert lone_site.state.phase is Phase.CONNECTING
    wait_until(lambda: refreshed(lone_site).phase is Phase.ERROR, what="the key is refused")
    assert "key.pub" in lone_site.state.message
    assert not lone_site.joined
    lone_site.leave()
    assert lone_site.state.phase is Phase.OFFLINE
    assert processes_of(lone_site.files.folder) == []


def test_a_stranger_cannot_register_itself(coordinator):
    private, public = generate_key_pairs()
    with FleetHttpClient.from_server_address(
        coordinator.settings.local_address,
        False,
        (coordinator.folder / "ca.pem").read_bytes(),
        interceptors=[
            RuntimeVersionHttpInterceptor(component_name="SuperNode"),
            NodeAuthHttpInterceptor(private, public),
        ],
    ) as client:
        request = RegisterNodeFleetRequest(public_key=public_key_to_bytes(public))
        with pytest.raises(httpx.HTTPStatusError):
            client.RegisterNode(request)
    with connect(coordinator.settings.local_address, coordinator.folder / "ca.pem") as control:
        assert public_key_to_bytes(public) not in {node.public_key for node in control.nodes()}


def test_what_a_site_sees_when_the_certificate_is_not_the_federations(
    lone_site, coordinator, invite, recipe, tmp_path, wait_until
):
    other = Coordinator(tmp_path / "other")
    other.init(recipe)
    lone_site.import_invitation(invite(coordinator, authority=invite(other).authority))
    lone_site.join()
    wait_until(lambda: refreshed(lone_site).phase is Phase.ERROR, what="it is refused")
    assert "could not prove who it is" in lone_site.state.message


def test_what_a_site_sees_when_nobody_answers(lone_site, coordinator, invite, wait_until):
    lone_site.import_invitation(invite(coordinator, address=f"127.0.0.1:{free_port()}"))
    lone_site.join()
    wait_until(lambda: "does not answer" in refreshed(lone_site).message, what="it is told")
    assert lone_site.state.phase is Phase.CONNECTING
    lone_site.leave()
    assert processes_of(lone_site.files.folder) == []


def test_one_program_at_a_time_joins_with_a_folder(sites):
    with pytest.raises(FederationError, match="leave there first"):
        Site(sites[0].files.site).join()


def test_a_second_coordinator_in_the_folder_is_refused(coordinator):
    with pytest.raises(FederationError, match="running already"):
        Coordinator(coordinator.folder).start()


def test_a_port_in_use_is_told(coordinator, recipe, tmp_path):
    other = Coordinator(tmp_path / "other")
    other.init(recipe, Reach(port=coordinator.settings.port))
    with pytest.raises(FederationError, match="in use"):
        other.start()
    assert processes_of(other.folder) == []


def test_two_rounds_end_to_end(coordinator, sites):
    before = len(coordinator.results())
    lines = []
    results = coordinator.run(2, tell=lines.append, wait_seconds=300)
    assert [result.aggregated for result in results] == [True, True]
    assert [result.round for result in results] == [before + 1, before + 2]
    assert all((result.updates, result.cases) == (2, 4) for result in results)
    assert lines[-1] == results[-1].summary
    status = Coordinator(coordinator.folder).status()
    assert status.sites == {"Hospital A": True, "Hospital B": True}
    assert status.waits_for == ""
    shared = CheckpointStore(coordinator.folder).newest(coordinator.recipe.hash).shared
    for site in sites:
        state = refreshed(site)
        assert state.phase is Phase.UP_TO_DATE
        assert (state.rounds_joined, state.round) == (2, results[-1].round)
        assert [round_number for round_number, _ in state.dice_history] == [
            result.round for result in results
        ]
        versions = VersionStore(site.files.versions)
        assert len(versions.versions()) == 2
        log = read_audit(site.files.audit)
        assert [line.purpose for line in log] == ["train", "evaluate"] * 2
        assert {array.name for array in log[0].arrays} == set(shared)
        assert state.bytes_sent == sum(line.bytes for line in log)


def tampered_bundle():
    """Return a bundle that Flower accepts, with one more line of code than the pinned one."""
    with zipfile.ZipFile(io.BytesIO(build_bundle())) as original:
        contents = {name: original.read(name) for name in original.namelist()}
    contents["fedsam_app.py"] += b"\nprint('code that the site has not agreed to')\n"
    del contents[".info/CONTENT"]
    contents[".info/CONTENT"] = "\n".join(
        f"{name},{hashlib.sha256(content).hexdigest()},{8 * len(content)}"
        for name, content in contents.items()
    ).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as copy:
        for name, content in contents.items():
            copy.writestr(name, content)
    return buffer.getvalue()


def test_a_tampered_bundle_is_refused_and_nothing_of_it_is_stored(coordinator, sites, wait_until):
    wait_until(lambda: all(site.joined for site in sites), what="both sites are connected")
    before = len(coordinator.results())
    settings = coordinator.settings
    bundle = tampered_bundle()
    with connect(settings.local_address, coordinator.folder / "ca.pem") as control:
        run_id = control.start_run(bundle, hashlib.sha256(bundle).hexdigest(), 1)
        wait_until(lambda: control.run(run_id).finished, what="the run ended")
    (result,) = coordinator.results()[before:]
    assert not result.aggregated
    assert [refused.code for refused in result.refused] == ["refused-bundle"] * 2
    for site in sites:
        assert "refused" in refreshed(site).message
        apps = site.files.folder / "flower" / "apps"
        installed = [path.name for path in apps.glob("*")]
        assert all(bundle_hash()[:8] in name for name in installed)
        assert read_audit(site.files.audit)[-1].error == "refused-bundle"
        log = (site.files.folder / "logs" / "superexec.log").read_text()
        assert "not agreed to" not in log


def test_leaving_in_the_middle_of_training_ends_everything_at_once(
    coordinator, sites, wait_until, add_cases
):
    """Runs last: it takes both sites out."""
    for number, site in enumerate(sites):
        # So many that neither is done while the other is looked at.
        add_cases(site.files.site, train=60, val=0, seed=10 + number)
    left = threading.Event()
    run = threading.Thread(target=coordinator.run, args=(1,), kwargs={"cancelled": left.is_set})
    run.start()
    try:
        for site in sites:
            wait_until(lambda site=site: refreshed(site).phase is Phase.TRAINING, what="training")
            site.leave()
            assert site.state.phase is Phase.OFFLINE
            assert processes_of(site.files.folder) == []
            assert (
                not site.files.lock.exists() or Site(site.files.site).state.phase is Phase.OFFLINE
            )
    finally:
        left.set()
        run.join(timeout=60)
    assert not run.is_alive()


def fedsam(*words):
    return [sys.executable, "-m", "napari_fedsam.app", *map(str, words)]


def test_joining_by_command_lasts_until_leaving(sites):
    """Runs after both sites have left."""
    site = sites[0]
    folder = ("--folder", site.files.site)
    told = subprocess.run(fedsam("site", "join", *folder), capture_output=True, check=True)
    assert b"waiting for a round" in told.stdout
    assert len(processes_of(site.files.folder)) >= 2
    subprocess.run(fedsam("site", "leave", *folder), capture_output=True, check=True)
    assert processes_of(site.files.folder) == []


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C reaches whole consoles on Windows")
def test_a_service_leaves_when_it_is_interrupted(sites):
    site = sites[1]
    words = fedsam("site", "run", "--folder", site.files.site)
    service = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    with service, service.stdout as told:
        assert any("waiting for a round" in line.lower() for line in told)
        assert len(processes_of(site.files.folder)) >= 2
        service.send_signal(signal.SIGINT)
        assert "Left the federation." in told.read()
    assert service.returncode == 0
    assert processes_of(site.files.folder) == []
