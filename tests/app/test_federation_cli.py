"""The federation's commands, as two people type them on two machines."""

import json
import signal
import sys

import pytest
from typer.testing import CliRunner

from napari_fedsam.app.cli import app
from napari_fedsam.errors import FedSamError
from napari_fedsam.federation.audit import AuditLine, append_audit
from napari_fedsam.federation.checkpoints import CheckpointStore
from napari_fedsam.federation.coordinator import Coordinator
from napari_fedsam.federation.coordinator_setup import Reach
from napari_fedsam.federation.invitation import Invitation
from napari_fedsam.federation.keys import fingerprint
from napari_fedsam.federation.round_result import RoundResult
from napari_fedsam.federation.site import Site


@pytest.fixture
def coordinator(tmp_path, type_in):
    recipe = tmp_path / "recipe.json"
    type_in("coordinator", "recipe", recipe, "--name", "Discs", "--structure", "disc")
    folder = tmp_path / "coordinator"
    type_in(
        *("coordinator", "init", folder, "--recipe", recipe),
        *("--host", "fed.example", "--port", 9443, "--also", "192.0.2.7", "--contact", "me"),
    )
    return Coordinator(folder)


def test_a_recipe_whose_rounds_one_site_could_stop_is_warned_of(type_in, tmp_path):
    file = tmp_path / "recipe.json"
    type_in("coordinator", "recipe", file, "--name", "Discs", "--structure", "disc")
    harmless = type_in("coordinator", "init", tmp_path / "harmless", "--recipe", file)
    assert "Mind:" not in harmless
    fields = json.loads(file.read_text(encoding="utf-8"))
    fields |= {"minimum_sites": 5, "federation": {"aggregation": "krum"}}
    file.write_text(json.dumps(fields), encoding="utf-8")
    told = type_in("coordinator", "init", tmp_path / "coordinator", "--recipe", file)
    assert "invite at least 6 sites" in told


def test_from_init_to_approval(coordinator, folder, type_in, tmp_path):
    told = type_in("coordinator", "invite", coordinator.folder, "A")
    invitation = Invitation.read(coordinator.invitation_path("A"))
    assert invitation.fingerprint in told
    shown = type_in(
        *("site", "import", coordinator.invitation_path("A"), "--folder", folder), answer="y\n"
    )
    assert invitation.fingerprint in shown
    assert "What leaves: the shared parameters" in shown
    key = tmp_path / "a.pub"
    shown = type_in("site", "key", "--folder", folder, "--out", key)
    told = type_in("coordinator", "approve", coordinator.folder, "A", key)
    short = fingerprint(key.read_text())
    assert short in shown
    assert short in told
    assert [site.name for site in coordinator.sites.sites()] == ["A"]
    shown = type_in("coordinator", "status", coordinator.folder)
    assert "Discs at fed.example:9443: stopped" in shown
    assert "A: not connected" in shown
    assert "a round would wait: the coordinator is not running" in shown
    type_in("coordinator", "revoke", coordinator.folder, "A")
    assert coordinator.sites.sites() == ()


def test_nothing_is_imported_when_the_fingerprints_differ(coordinator, folder, type_in):
    coordinator.invite("A")
    path = coordinator.invitation_path("A")
    with pytest.raises(FedSamError, match="call the coordinator"):
        type_in("site", "import", path, "--folder", folder, "--fingerprint", "dead-beef")
    result = CliRunner().invoke(app, ["site", "import", str(path), "--folder", str(folder)], "n\n")
    assert result.exit_code != 0
    assert Site(folder).invitation is None
    agreed = Invitation.read(path).fingerprint
    type_in("site", "import", path, "--folder", folder, "--fingerprint", agreed.upper())
    assert Site(folder).invitation is not None
    # The next one of the same coordinator needs no telephone call.
    coordinator.invite("A")
    assert "is in use here" in type_in("site", "import", path, "--folder", folder)


def test_another_coordinators_invitation_is_said_to_replace_the_first(
    coordinator, folder, type_in, tmp_path
):
    coordinator.invite("A")
    first = coordinator.invitation_path("A")
    agreed = Invitation.read(first).fingerprint
    shown = type_in("site", "import", first, "--folder", folder, "--fingerprint", agreed)
    assert "Careful" not in shown
    other = Coordinator(tmp_path / "other")
    other.init(coordinator.recipe, Reach("elsewhere.example", 9444))
    agreed = other.invite("A").fingerprint
    path = other.invitation_path("A")
    shown = type_in("site", "import", path, "--folder", folder, "--fingerprint", agreed)
    assert "Careful: there is an invitation to 'Discs' from another coordinator" in shown
    assert "fed.example:9443" in shown


def test_a_pause_is_seen(coordinator, type_in):
    type_in("coordinator", "pause", coordinator.folder)
    assert "stopped, paused" in type_in("coordinator", "status", coordinator.folder)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signal")
def test_a_run_whose_terminal_is_closed_says_how_to_go_on(coordinator, monkeypatch):
    handlers = {}
    monkeypatch.setattr(signal, "getsignal", lambda _number: signal.SIG_DFL)
    monkeypatch.setattr(signal, "signal", handlers.__setitem__)

    def ended(*_arguments, **_options):
        # What the handler raises.
        handlers[signal.SIGHUP](signal.SIGHUP, None)

    monkeypatch.setattr(Coordinator, "run", ended)
    result = CliRunner().invoke(app, ["coordinator", "run", str(coordinator.folder)])
    assert result.exit_code == 1
    assert "'napari-fedsam coordinator run' goes on" in " ".join(result.output.split())


def test_rounds_that_changed_nothing_are_not_counted(coordinator, type_in, monkeypatch):
    store = CheckpointStore(coordinator.folder)
    for number, aggregated in ((1, True), (2, False)):
        store.save(
            RoundResult(
                round=number,
                recipe_hash=coordinator.recipe.hash,
                aggregated=aggregated,
                complete=True,
            ),
            None,
        )
    monkeypatch.setattr(Coordinator, "run", lambda self, *_, **__: self.results())
    assert "1 rounds were run" in type_in("coordinator", "run", coordinator.folder)
    assert "rounds so far: 1 " in type_in("coordinator", "status", coordinator.folder)


def test_a_site_tests_its_connection_and_fails_with_a_status(coordinator, folder):
    Site(folder).import_invitation(coordinator.invite("A"))
    result = CliRunner().invoke(app, ["site", "test", "--folder", str(folder)])
    assert result.exit_code == 1
    assert "ok Recipe" in " ".join(result.output.split())
    assert "FAIL Name: The name fed.example" in " ".join(result.output.split())


def test_settings_are_changed_one_by_one(folder, type_in):
    type_in("site", "settings", "--folder", folder, "--pause", "--threads", 2)
    shown = type_in("site", "settings", "--folder", folder, "--hours", "22:00-06:00")
    assert shown == (
        "paused: True hours: 22:00-06:00 threads: 2 new_cases: 0 when_idle: False ask_first: False"
    )
    assert "paused: False" in type_in("site", "settings", "--folder", folder, "--resume")
    type_in("site", "settings", "--folder", folder, "--when-idle", "--ask-first")
    shown = type_in("site", "settings", "--folder", folder, "--use-at-once")
    assert shown.endswith("when_idle: True ask_first: False")


def test_the_audit_log_is_listed_and_exported(folder, type_in, tmp_path):
    site = Site(folder)
    append_audit(
        site.files.audit,
        AuditLine(time="t", round=3, purpose="train", error="failed", bytes=9, sha256="f" * 64),
    )
    shown = type_in("site", "audit", "--folder", folder, "--export", tmp_path / "list.jsonl")
    assert "1 t round 3 train: failed, 9 bytes, sha256 ffffffffffff" in shown
    (line,) = (tmp_path / "list.jsonl").read_text().splitlines()
    assert json.loads(line)["round"] == 3
    with pytest.raises(FedSamError, match="There is no message 2"):
        type_in("site", "audit", "--folder", folder, "--open", 2)
    with pytest.raises(FedSamError, match="no longer kept"):
        type_in("site", "audit", "--folder", folder, "--open", 1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--method", "nonsense"], "There is no method named 'nonsense'"),
        (["--structure", "x" * 200], "This is no recipe"),
    ],
)
def test_what_is_no_recipe_is_refused(type_in, tmp_path, options, words):
    path = tmp_path / "r.json"
    with pytest.raises(FedSamError, match=words):
        type_in("coordinator", "recipe", path, "--name", "x", "--structure", "y", *options)
    assert not path.exists()


def test_a_recipe_is_not_overwritten(type_in, tmp_path):
    words = ("coordinator", "recipe", tmp_path / "r.json", "--name", "x", "--structure", "y")
    type_in(*words)
    with pytest.raises(FedSamError, match="exists already"):
        type_in(*words)


def test_no_round_is_no_report(coordinator, type_in, tmp_path):
    with pytest.raises(FedSamError, match="nothing to report"):
        type_in("coordinator", "report", coordinator.folder, "--out", tmp_path / "r.html")


def test_a_certificate_without_its_key_is_refused(type_in, tmp_path, coordinator):
    with pytest.raises(FedSamError, match="three files"):
        type_in(
            *("coordinator", "init", tmp_path / "c"),
            *("--recipe", coordinator.files.recipe, "--certificate", coordinator.files.recipe),
        )
