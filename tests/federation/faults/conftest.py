"""A real coordinator and a real site between which things go wrong."""

import contextlib
import datetime
import socket
import threading
import time

import psutil
import pytest

from napari_fedsam.cases.store import CaseStore
from napari_fedsam.federation.coordinator import Coordinator
from napari_fedsam.federation.coordinator_setup import Reach
from napari_fedsam.federation.processes import OWNER_VARIABLE
from napari_fedsam.federation.site import Site
from napari_fedsam.training.versions import VersionStore

TRAINING_CASES = 6
ASK_AGAIN_AFTER = datetime.timedelta(seconds=5)


class Rounds(threading.Thread):
    """Rounds in the background, and what was told about them."""

    def __init__(self, coordinator, rounds):
        super().__init__(daemon=True)
        self._coordinator, self._rounds = coordinator, rounds
        self.lines = []
        self.error = None
        self.cancelled = False

    def run(self):
        try:
            self._coordinator.run(
                self._rounds,
                tell=self.lines.append,
                cancelled=lambda: self.cancelled,
                ask_again_after=ASK_AGAIN_AFTER,
            )
        except Exception as error:  # noqa: BLE001 - the test looks at it
            self.error = error

    def finish(self):
        self.join(500)
        assert not self.is_alive()
        assert self.error is None


class Relay:
    """Forwards a port of its own to another, and can be cut like a cable."""

    def __init__(self, target):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._target = target
        self._lock = threading.RLock()
        self._open = []
        self._left = {}
        self.is_cut = threading.Event()
        self.mend()

    def mend(self):
        listener = socket.create_server(("127.0.0.1", self.port))
        self._open.append(listener)
        self.is_cut.clear()
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def cut(self):
        with self._lock:
            self._left.clear()
            for each in self._open:
                # Who waits on it in another thread wakes up.
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
                each.close()
            self._open.clear()
            self.is_cut.set()

    def cut_within(self, direction, size):
        """Cut as soon as so many bytes more have passed `up` or `down`."""
        self._left[direction] = size

    def _accept(self, listener):
        with contextlib.suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
                with self._lock:
                    self._open += [near, far]
                for source, sink, direction in ((near, far, "up"), (far, near, "down")):
                    arguments = (source, sink, direction)
                    threading.Thread(target=self._pass, args=arguments, daemon=True).start()

    def _pass(self, source, sink, direction):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
                with self._lock:
                    if direction in self._left:
                        self._left[direction] -= len(data)
                        if self._left[direction] < 0:
                            self.cut()
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


def processes_of(folder, words=""):
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            ours = process.environ().get(OWNER_VARIABLE) == str(folder.resolve())
            if ours and words in " ".join(process.cmdline()):
                found.append(process)
    return found


class Federation:
    """A coordinator, a site that has joined over a relay, and what the tests ask of both."""

    def __init__(self, coordinator, site, relay, wait_until):
        self.coordinator, self.site, self.relay = coordinator, site, relay
        self.wait_until = wait_until
        self._started = []

    def rounds(self, count):
        self._started.append(Rounds(self.coordinator, count))
        self._started[-1].start()
        return self._started[-1]

    def processes(self, party, words=""):
        return processes_of(
            {"site": self.site.files, "coordinator": self.coordinator}[party].folder, words
        )

    @property
    def state(self):
        self.site.refresh()
        return self.site.state

    def wait_for(self, phase):
        self.wait_until(lambda: self.state.phase is phase, 300, f"the site is {phase}")

    def wait_for_judging(self):
        self.wait_until(lambda: "judging" in self.state.message, 300, "the site judges")

    def wait_for_rounds(self, count):
        """Wait until so many rounds have changed the model and were judged."""

        def done():
            good = [
                each for each in self.coordinator.results() if each.aggregated and each.complete
            ]
            return len(good) >= count

        self.wait_until(done, 400, f"{count} good rounds")

    def assert_nothing_is_lost(self, rounds, cases=TRAINING_CASES + 1):
        results = self.coordinator.results()
        assert [result.round for result in results] == list(range(1, rounds + 1))
        assert results[-1].aggregated
        assert len(CaseStore(self.site.files.cases).records()) == cases
        assert VersionStore(self.site.files.versions).versions()[-1].round == rounds

    def close(self):
        for each in self._started:
            each.cancelled = True
            each.join(60)
        self.site.leave()
        self.coordinator.stop()
        self.relay.cut()
        assert self.processes("site") == self.processes("coordinator") == []


@pytest.fixture
def folders(tmp_path):
    """Where the site and the coordinator live; a module with small disks has others."""
    return {"site": tmp_path / "site", "coordinator": tmp_path / "coordinator"}


@pytest.fixture
def federation(folders, recipe, invite, add_cases, wait_until):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    coordinator = Coordinator(folders["coordinator"])
    coordinator.init(recipe.model_copy(update={"minimum_sites": 1}), Reach(port=port))
    site = Site(folders["site"])
    relay = Relay(port)
    federation = Federation(coordinator, site, relay, wait_until)
    coordinator.start()
    try:
        site.import_invitation(invite(coordinator, "A", address=f"127.0.0.1:{relay.port}"))
        add_cases(site.files.site, train=TRAINING_CASES)
        coordinator.approve("A", site.public_key)
        site.join(threads=1)
        wait_until(lambda: site.joined, what="the site has joined")
        yield federation
    finally:
        federation.close()


@pytest.fixture
def recovery(request):
    """Return a stopwatch; `--junitxml` writes what it has measured."""

    @contextlib.contextmanager
    def measure():
        started = time.monotonic()
        yield
        seconds = round(time.monotonic() - started, 1)
        request.node.user_properties.append(("seconds to recover", seconds))

    return measure
