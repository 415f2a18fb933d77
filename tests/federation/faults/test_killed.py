"""Processes killed in the middle of a round, with a real coordinator and a real site."""

import signal
import subprocess
import sys

import psutil
import pytest

from napari_fedsam.federation.processes import ProcessTable
from napari_fedsam.federation.site_state import Phase

pytestmark = [pytest.mark.federation, pytest.mark.faults, pytest.mark.slow]


def kill(folder, name):
    psutil.Process(ProcessTable(folder).records()[name].pid).kill()


@pytest.mark.parametrize("moment", ["training", "judging"])
@pytest.mark.parametrize("victim", ["superlink", "superexec"])
def test_a_killed_process_of_the_coordinator_comes_back_and_the_rounds_go_on(
    federation, recovery, victim, moment
):
    running = federation.rounds(2)
    if moment == "training":
        federation.wait_for(Phase.TRAINING)
    else:
        federation.wait_for_judging()
    with recovery():
        kill(federation.coordinator.folder, victim)
        federation.wait_for_rounds(1)
    running.finish()
    assert f"{victim} had ended unexpectedly and was started again" in running.lines
    federation.assert_nothing_is_lost(2)


def test_a_killed_serverapp_is_started_again_after_the_newest_round(federation, recovery):
    running = federation.rounds(2)
    federation.wait_for_rounds(1)
    federation.wait_for(Phase.TRAINING)
    with recovery():
        (app, *_) = federation.processes("coordinator", "flwr-serverapp")
        app.kill()
        federation.wait_for_rounds(2)
    running.finish()
    federation.assert_nothing_is_lost(2)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signal")
def test_a_run_whose_terminal_is_closed_stops_its_serverapp_and_the_next_goes_on(
    federation, recovery
):
    command = [sys.executable, "-m", "napari_fedsam.app", "coordinator", "run"]
    program = subprocess.Popen(
        [*command, str(federation.coordinator.folder)], stdout=subprocess.PIPE, text=True
    )
    federation.wait_for(Phase.TRAINING)
    with recovery():
        program.send_signal(signal.SIGHUP)
        told, _ = program.communicate(timeout=60)
        running = federation.rounds(1)
        running.finish()
    assert program.returncode == 1
    assert "Interrupted" in told
    assert not any("ended early" in line for line in running.lines)
    federation.assert_nothing_is_lost(1)


def test_a_killed_training_costs_one_update_and_nothing_else(federation, recovery):
    running = federation.rounds(2)
    federation.wait_for(Phase.TRAINING)
    with recovery():
        for app in federation.processes("site", "flwr-clientapp"):
            app.kill()
        federation.wait_for_rounds(1)
    running.finish()
    assert "round 1: too few updates, left out A: failed; nothing changed" in running.lines
    federation.assert_nothing_is_lost(2)


def test_a_killed_node_is_seen_at_the_site_and_joins_again(federation, recovery):
    with recovery():
        kill(federation.site.files.folder, "supernode")
        federation.wait_for(Phase.ERROR)
        assert "join again" in federation.site.state.message
        federation.site.leave()
        federation.site.join(threads=1)
        federation.wait_until(lambda: federation.site.joined, what="the site has joined again")
    federation.rounds(1).finish()
    federation.assert_nothing_is_lost(1)
