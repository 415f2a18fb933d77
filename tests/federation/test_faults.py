"""Processes killed in the middle of a round, with a real coordinator and real sites."""

import contextlib
import socket
import threading

import psutil
import pytest

from napari_fedsam.cases.store import CaseStore
from napari_fedsam.federation.coordinator import Coordinator
from napari_fedsam.federation.coordinator_setup import Reach
from napari_fedsam.federation.processes import OWNER_VARIABLE, ProcessTable
from napari_fedsam.federation.site import Site
from napari_fedsam.federation.site_state import Phase
from napari_fedsam.training.versions import VersionStore

pytestmark = [pytest.mark.federation, pytest.mark.faults, pytest.mark.slow]


def processes_of(folder, words=""):
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            ours = process.environ().get(OWNER_VARIABLE) == str(folder.resolve())
            if ours and words in " ".join(process.cmdline()):
                found.append(process)
    return found


@pytest.fixture
def coordinator(tmp_path, recipe):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    coordinator = Coordinator(tmp_path / "coordinator")
    coordinator.init(recipe.model_copy(update={"minimum_sites": 1}), Reach(port=port))
    coordinator.start()
    yield coordinator
    coordinator.stop()
    assert processes_of(coordinator.folder) == []


@pytest.fixture
def site(tmp_path, coordinator, add_cases):
    site = Site(tmp_path / "site")
    coordinator.invite("A")
    site.import_invitation(coordinator.invite("A"))
    add_cases(site.files.site, train=6)
    coordinator.approve("A", site.public_key)
    site.join(threads=1)
    yield site
    site.leave()
    assert processes_of(site.files.folder) == []


class Rounds(threading.Thread):
    """Rounds in the background, and what was told about them."""

    def __init__(self, coordinator, rounds):
        super().__init__(daemon=True)
        self._coordinator, self._rounds = coordinator, rounds
        self.lines = []
        self.results = None
        self.cancelled = False

    def run(self):
        self.results = self._coordinator.run(
            self._rounds, tell=self.lines.append, cancelled=lambda: self.cancelled
        )


@pytest.fixture
def rounds(coordinator):
    started = []

    def start(count):
        started.append(Rounds(coordinator, count))
        started[-1].start()
        return started[-1]

    yield start
    for each in started:
        each.cancelled = True
        each.join(60)


def phase(site):
    site.refresh()
    return site.state.phase


def wait_for_training(site, wait_until):
    wait_until(lambda: phase(site) is Phase.TRAINING, 240, "the site trains")


def nothing_is_lost(coordinator, site, wanted):
    results = coordinator.results()
    assert [result.round for result in results] == list(range(1, len(results) + 1))
    assert len(results) == wanted
    assert results[-1].aggregated
    assert len(CaseStore(site.files.cases).records()) == 7
    assert VersionStore(site.files.versions).versions()[-1].round == wanted


@pytest.mark.parametrize("victim", ["superlink", "superexec"])
def test_a_killed_process_of_the_coordinator_comes_back_and_the_rounds_go_on(
    coordinator, site, rounds, wait_until, victim
):
    running = rounds(2)
    wait_for_training(site, wait_until)
    psutil.Process(ProcessTable(coordinator.folder).records()[victim].pid).kill()
    running.join(500)
    assert not running.is_alive()
    assert f"{victim} had ended unexpectedly and was started again" in running.lines
    nothing_is_lost(coordinator, site, 2)


def test_a_killed_serverapp_is_started_again_after_the_newest_round(
    coordinator, site, rounds, wait_until
):
    running = rounds(2)
    wait_until(lambda: len(coordinator.results()) == 1, 300, "the first round")
    wait_for_training(site, wait_until)
    (app, *_) = processes_of(coordinator.folder, "flwr-serverapp")
    app.kill()
    running.join(500)
    assert not running.is_alive()
    nothing_is_lost(coordinator, site, 2)


def test_a_killed_training_costs_one_update_and_nothing_else(coordinator, site, rounds, wait_until):
    running = rounds(2)
    wait_for_training(site, wait_until)
    for app in processes_of(site.files.folder, "flwr-clientapp"):
        app.kill()
    running.join(500)
    assert not running.is_alive()
    first, _ = coordinator.results()
    assert [(left_out.name, left_out.code) for left_out in first.refused] == [("A", "failed")]
    nothing_is_lost(coordinator, site, 2)


def test_a_killed_node_is_seen_at_the_site_and_joins_again(coordinator, site, rounds, wait_until):
    psutil.Process(ProcessTable(site.files.folder).records()["supernode"].pid).kill()
    wait_until(lambda: phase(site) is Phase.ERROR, 60, "the site sees it")
    assert "join again" in site.state.message
    site.leave()
    site.join(threads=1)
    running = rounds(1)
    running.join(500)
    assert not running.is_alive()
    nothing_is_lost(coordinator, site, 1)
