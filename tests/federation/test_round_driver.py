"""The program that drives rounds: a SuperLink is stood in for, the rounds are real."""

import contextlib
import datetime
import os
from pathlib import Path

import pytest
import torch
from flwr.app import Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from napari_fedsam.federation import round_driver
from napari_fedsam.federation.checkpoints import CheckpointStore
from napari_fedsam.federation.control import RunInfo
from napari_fedsam.federation.coordinator import Coordinator
from napari_fedsam.federation.coordinator_settings import COORDINATOR_VARIABLE, CoordinatorFiles
from napari_fedsam.federation.coordinator_status import CoordinatorStatus
from napari_fedsam.federation.errors import FederationError
from napari_fedsam.federation.in_process import InProcessGrid
from napari_fedsam.federation.messages import config_record, round_of
from napari_fedsam.federation.packed_parameters import pack_parameters, unpack_parameters
from napari_fedsam.federation.round_driver import RoundDriver, asks_again
from napari_fedsam.federation.round_runner import RoundRunner
from napari_fedsam.federation.server_app import main, run_rounds

SPEC = {"w": ((2,), "float32")}
AT_ONCE = datetime.timedelta(0)
COMPLETED = RunInfo(finished=True, completed=True, details="")


class KilledError(Exception):
    """The ServerApp is gone."""


class Grid(InProcessGrid):
    """Two sites that add one; they decline, or the ServerApp dies, as often as asked for."""

    def __init__(self):
        super().__init__(self._sites_app(), {2: Path("a"), 3: Path("b")})
        self.asked = []
        self.declining = self.dying = 0

    def push_messages(self, messages):
        messages = list(messages)
        kind = messages[0].metadata.message_type
        self.asked.append((kind, round_of(messages[0].content)))
        if kind == "evaluate" and self.dying:
            self.dying -= 1
            raise KilledError
        ids = super().push_messages(messages)
        if kind == "train" and self.declining:
            self.declining -= 1
        return ids

    def die(self):
        raise KilledError

    def _sites_app(self):
        app = ClientApp()

        @app.train()
        def train(message, _context):
            if self.declining:
                return Message(Error(100, "declined"), reply_to=message)
            if "shared" not in message.content.array_records:
                return Message(Error(100, "parameters-missing"), reply_to=message)
            w = unpack_parameters(message.content["shared"])["w"]
            metrics = MetricRecord({"num-examples": 1, "loss": 1.0, "seconds": 1.0})
            config = config_record(
                message.content["config"]["recipe-hash"], round_of(message.content)
            )
            content = {
                "shared": pack_parameters({"w": w + 1}),
                "metrics": metrics,
                "config": config,
            }
            return Message(RecordDict(content), reply_to=message)

        @app.evaluate()
        def evaluate(message, _context):
            dice = {"dice-none": 0.5, "dice-box": 0.5, "dice-point": 0.5}
            metrics = MetricRecord({"num-examples": 1, "activated": 1, **dice})
            content = {"metrics": metrics, "config": message.content["config"]}
            return Message(RecordDict(content), reply_to=message)

        return app


class SuperLink:
    """Runs the rounds at once; `follow` is what it answers about runs."""

    def __init__(self, files, recipe):
        self._files, self._recipe = files, recipe
        self.grid = Grid()
        self.runs, self.stopped = [], []
        self.follow = lambda: self.outcome
        self.outcome = COMPLETED
        # Of its process.
        self.ended, self.running = (), True

    @contextlib.contextmanager
    def connect(self):
        yield self

    def start_run(self, _bundle, _sha256, rounds):
        self.runs.append(rounds)
        store = CheckpointStore(self._files.folder)
        runner = RoundRunner(self.grid, self._recipe, SPEC, {"w": torch.zeros(2)}, store)
        self.outcome = COMPLETED
        try:
            runner.run(rounds, may_start=lambda: not self._files.paused.exists())
        except KilledError:
            self.outcome = RunInfo(finished=True, completed=False, details="killed")
        return len(self.runs)

    def run(self, _run_id):
        return self.follow()

    def stop_run(self, run_id):
        self.stopped.append(run_id)

    def status(self):
        return CoordinatorStatus(
            federation="Discs",
            running=True,
            address="",
            sites={"A": True, "B": True},
            minimum_sites=2,
            rounds=0,
            asks_again=asks_again(self._files),
        )


@pytest.fixture
def files(tmp_path):
    return CoordinatorFiles(tmp_path)


@pytest.fixture
def superlink(files, recipe):
    return SuperLink(files, recipe)


@pytest.fixture
def drive(files, recipe, superlink):
    """Return a function that drives rounds and returns the told lines."""

    def drive(rounds, wait_seconds=None, tell=None, **options):
        lines = []

        def note(line):
            lines.append(line)
            if tell is not None:
                tell(line)

        options = {"cancelled": lambda: False, "ask_again_after": AT_ONCE} | options
        driver = RoundDriver(
            files, recipe, superlink, superlink.connect, superlink.status, tell=note, **options
        )
        driver.drive(b"", "", rounds, wait_seconds)
        return lines

    return drive


def numbers(files):
    results = CheckpointStore(files.folder).results()
    return [(result.round, result.aggregated, result.complete) for result in results]


@pytest.mark.faults
def test_a_last_round_that_was_not_judged_is_judged_by_another_run(files, superlink, drive):
    superlink.grid.dying = 1
    lines = drive(1)
    assert superlink.runs == [1, 0]
    assert superlink.grid.asked == [("train", 1), ("evaluate", 1), ("evaluate", 1)]
    assert numbers(files) == [(1, True, True)]
    assert [line for line in lines if line.startswith("round 1")] == [lines[-1]]
    assert "Dice none 0.500" in lines[-1]


def test_declined_rounds_are_not_counted_and_keep_their_number(files, superlink, drive):
    superlink.grid.declining = 3
    lines = drive(2)
    asked = [number for kind, number in superlink.grid.asked if kind == "train"]
    assert superlink.runs == [2] * 4
    assert asked[:5] == [1, 1, 1, 1, 2]
    assert numbers(files) == [(1, True, True), (2, True, True)]
    # The same again is not told again.
    assert sum("too few updates" in line for line in lines) == 1


def test_sites_that_declined_are_asked_again_after_a_while_unless_it_is_paused(
    files, superlink, drive
):
    superlink.grid.declining = 1
    status = []

    def pause(line):
        if line.startswith("waiting until"):
            status.append(superlink.status().waits_for)
            files.paused.touch()

    before = datetime.datetime.now().astimezone()
    (told, waits) = drive(1, tell=pause, ask_again_after=datetime.timedelta(minutes=7))
    assert "left out 2: declined, 3: declined" in told
    # Whoever asks for the status reads the same.
    assert status == [waits]
    words = {
        f"waiting until {before + datetime.timedelta(minutes=7 + late):%H:%M} to ask the sites "
        "again (too few updates)"
        for late in (0, 1)
    }
    assert waits in words
    assert superlink.runs == [1]
    # Nobody waits any longer, and the next run asks at once.
    assert superlink.status().waits_for == ""
    files.paused.unlink()
    drive(1)
    assert numbers(files) == [(1, True, True)]


def test_who_does_not_want_to_wait_is_told_what_for(superlink, drive):
    superlink.grid.declining = 1
    with pytest.raises(FederationError, match="No round was run: waiting until"):
        drive(1, wait_seconds=0, ask_again_after=datetime.timedelta(minutes=7))


@pytest.mark.faults
@pytest.mark.parametrize("error", [KeyboardInterrupt, BrokenPipeError])
def test_a_run_that_nobody_follows_any_longer_is_stopped(superlink, drive, error):
    def interrupted():
        raise error

    superlink.follow = interrupted
    with pytest.raises(error):
        drive(1)
    assert superlink.stopped == [1]


def not_answering(times):
    left = iter(range(times))

    def ask():
        if next(left, None) is not None:
            raise FederationError("SuperLink did not answer")

    return ask


@pytest.mark.faults
def test_a_superlink_that_another_program_is_bringing_back_is_waited_for(files, superlink, drive):
    asked = not_answering(2)

    def follow():
        asked()
        return superlink.outcome

    superlink.follow = follow
    drive(1)
    assert superlink.runs == [1]
    assert superlink.stopped == []
    assert numbers(files) == [(1, True, True)]


@pytest.mark.faults
def test_before_a_round_it_is_waited_for_too(superlink, drive, monkeypatch):
    asked, status = not_answering(2), superlink.status

    def answer():
        asked()
        return status()

    monkeypatch.setattr(superlink, "status", answer)
    assert drive(1)[0] == "waiting for SuperLink (SuperLink did not answer)"


@pytest.mark.faults
def test_a_coordinator_that_was_stopped_is_not_waited_for(superlink, drive):
    superlink.running = False
    superlink.follow = not_answering(1)
    with pytest.raises(FederationError, match="did not answer"):
        drive(1)


@pytest.mark.faults
def test_after_runs_that_keep_failing_the_serverapps_log_is_named(files, superlink, drive):
    superlink.grid.get_node_ids = superlink.grid.die
    with pytest.raises(FederationError, match="ended early 3 times") as raised:
        drive(1)
    assert f"(killed); read {files.serverapp_log}." in str(raised.value)


# One at a time ------------------------------------------------------------------------------------


def test_a_second_serverapp_ends_before_it_touches_anything(tmp_path, recipe):
    recipe.write(CoordinatorFiles(tmp_path).recipe)
    store = CheckpointStore(tmp_path)
    with store.alone():
        store.arrivals.mkdir()
        with pytest.raises(FederationError, match="Another ServerApp runs rounds"):
            run_rounds(Grid(), tmp_path, 1)
        assert store.arrivals.exists()
        assert store.in_use
    assert not store.in_use


def test_a_run_waits_until_the_serverapp_of_an_earlier_one_has_ended(files, superlink, drive):
    earlier = CheckpointStore(files.folder).alone()
    earlier.__enter__()
    told = []

    def end(line):
        if not told:
            told.append(line)
            earlier.__exit__(None, None, None)

    drive(1, tell=end)
    assert told == ["waiting for the ServerApp of an earlier run to end"]
    assert superlink.runs == [1]


def test_what_the_serverapp_of_an_earlier_run_has_done_is_not_done_again(files, superlink, drive):
    earlier = CheckpointStore(files.folder).alone()
    earlier.__enter__()

    def do_it(line):
        if line.startswith("waiting for the ServerApp"):
            superlink.start_run(b"", "", 1)
            earlier.__exit__(None, None, None)

    drive(1, tell=do_it)
    assert superlink.runs == [1]


def test_a_run_that_is_refused_does_not_end_a_pause(tmp_path, recipe):
    coordinator = Coordinator(tmp_path / "coordinator")
    coordinator.init(recipe)
    with coordinator._one_driver():
        coordinator.pause()
        with pytest.raises(FederationError, match="Another program runs rounds"):
            Coordinator(coordinator.folder).run(1)
    assert coordinator.status().paused


# The ServerApp's log ------------------------------------------------------------------------------


class LostGrid(Grid):
    """The connection to the sites is gone."""

    def get_node_ids(self):
        raise RuntimeError("the connection is gone")


@pytest.fixture
def serve(files, recipe, monkeypatch):
    """Return a function that runs the ServerApp as Flower does."""
    recipe.write(files.recipe)
    monkeypatch.setenv(COORDINATOR_VARIABLE, str(files.folder))

    def serve(grid):
        config = {"node_config": {}, "state": RecordDict(), "run_config": {"rounds": 1}}
        main(grid, Context(run_id=1, node_id=1, **config))

    return serve


@pytest.mark.faults
def test_the_serverapp_keeps_a_log_of_its_own(files, serve):
    grid = Grid()
    grid.declining = 1
    serve(grid)
    first = files.serverapp_log.read_text()
    assert "INFO round 1: asking 2 sites to train" in first
    assert "INFO round 1: too few updates, left out 2: declined" in first
    with pytest.raises(RuntimeError):
        serve(LostGrid())
    second = files.serverapp_log.read_text()
    assert "Traceback" in second
    assert "RuntimeError: the connection is gone" in second
    assert files.serverapp_log.with_name("serverapp.1.log").read_text() == first
    if os.name == "posix":
        assert files.serverapp_log.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.faults
def test_a_refused_serverapp_says_why_in_one_sentence(files, serve):
    files.serverapp_log.parent.mkdir()
    files.serverapp_log.write_text("of the first\n")
    with CheckpointStore(files.folder).alone(), pytest.raises(FederationError):
        serve(Grid())
    first, refusal = files.serverapp_log.read_text().splitlines()
    assert first == "of the first"
    assert "ERROR Another ServerApp runs rounds in" in refusal


def test_a_run_that_a_full_disk_holds_up_is_told_once(files, superlink, drive, monkeypatch):
    """SuperLink answers nothing while it cannot write, and the run ends neither way."""
    under_way = RunInfo(finished=False, completed=False, details="")
    answers = iter([under_way] * 3)
    superlink.follow = lambda: next(answers, superlink.outcome)
    # As it was before the run, then as the run is looked at.
    room = iter(["", "full", "full", ""])
    monkeypatch.setattr(round_driver, "lack_of_room", lambda _: next(room, ""))
    monkeypatch.setattr(round_driver, "_POLL_SECONDS", 0)
    lines = drive(1)
    assert lines.count(f"waiting for room on the disk of {files.folder}, which is full") == 1
    assert numbers(files) == [(1, True, True)]


def test_no_run_is_started_while_the_disk_is_full(superlink, drive, monkeypatch):
    def make_room(line):
        if "waiting for room" in line:
            assert not superlink.runs
            monkeypatch.setattr(round_driver, "lack_of_room", lambda _: "")

    monkeypatch.setattr(round_driver, "lack_of_room", lambda _: "full")
    monkeypatch.setattr(round_driver, "_POLL_SECONDS", 0)
    lines = drive(1, tell=make_room)
    assert "waiting for room" in lines[0]
    assert superlink.runs == [1]
