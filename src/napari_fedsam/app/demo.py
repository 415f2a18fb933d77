"""`napari-fedsam demo`: prompt a scan, keep the correction, federate, prompt again.

A federation of a window and simulated sites on loopback: a real SuperLink and real SuperNodes with
TLS and registered keys.
"""

import contextlib
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from napari_fedsam.annotation.model_source import ModelSource
from napari_fedsam.app import demo_report
from napari_fedsam.app.console import console
from napari_fedsam.app.demo_sites import DemoPlan, DemoSite, manifest_plan, sample_plan
from napari_fedsam.app.demo_window import ScriptedWindow, open_window
from napari_fedsam.app.output_files import ready_folder
from napari_fedsam.app.virtual_display import display_or_xvfb, has_display
from napari_fedsam.errors import FedSamError
from napari_fedsam.federation.coordinator import Coordinator
from napari_fedsam.federation.coordinator_setup import Reach
from napari_fedsam.federation.invitation import Invitation
from napari_fedsam.federation.site import Site
from napari_fedsam.federation.site_state import Phase
from napari_fedsam.training.evaluation import Evaluation, evaluate

_JOIN_SECONDS = 120.0
_ROUND_SECONDS = 900.0
_INTERACTIVE_ROUNDS = 3


def run_demo(
    *,
    headless: bool,
    out: Path,
    quick: bool = False,
    scan: Path | None = None,
    data: Path | None = None,
    task: str | None = None,
) -> None:
    """Run the demo, unattended or in a window for a person.

    Parameters
    ----------
    headless : bool
    out : Path
        Folder for everything that the demo makes; what an earlier demo left there is replaced.
    quick : bool
        Little data and training: shows that it works, not how well.
    scan : Path, optional
        Opened instead of the demo's own scan.
    data, task : Path and str, optional
        A manifest and its task, whose sites become the hospitals.

    Raises
    ------
    FedSamError
        When there is no display for a window, or a step fails.
    """
    if not headless and not has_display():
        raise FedSamError(
            "There is no display to open a window on: use 'napari-fedsam demo --headless'."
        )
    work = _fresh_folder(out)
    if data is not None and task is not None:
        plan = manifest_plan(work, data, task, quick=quick)
    else:
        plan = sample_plan(work, quick=quick)
    console.print(f"{plan.title}. {plan.note} Research use only.", markup=False)
    if headless:
        with display_or_xvfb():
            _Story(plan, out, work).run()
    else:
        _open_for_a_person(plan, work, scan)


def _fresh_folder(out: Path) -> Path:
    work = ready_folder(out) / "federation"
    if work.exists():
        shutil.rmtree(work)
    for old in out.glob("[0-9][0-9]-*.png"):
        old.unlink()
    work.mkdir(parents=True)
    return work


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def _federation(plan: DemoPlan, work: Path) -> Iterator[tuple[Coordinator, list[Site]]]:
    """Start a coordinator and join every site but the first, which has the window."""
    coordinator = Coordinator(work / "coordinator")
    coordinator.init(plan.recipe, Reach(port=_free_port()), contact="this demo")
    sites = [Site(site.folder) for site in plan.sites]
    for site, described in zip(sites, plan.sites, strict=True):
        # As between two people: the file goes to the site, its public key comes back.
        coordinator.invite(described.name)
        site.import_invitation(Invitation.read(coordinator.invitation_path(described.name)))
        coordinator.approve(described.name, site.public_key)
    try:
        coordinator.start()
        for site in sites[1:]:
            site.join()
        yield coordinator, sites
    finally:
        for site in sites[1:]:
            site.leave()
        coordinator.stop()


class _Rounds(threading.Thread):
    """Runs the rounds in the background; `error` holds what went wrong."""

    def __init__(self, coordinator: Coordinator, rounds: int, wait_seconds: float | None) -> None:
        super().__init__(name="demo rounds", daemon=True)
        self._coordinator = coordinator
        self._rounds = rounds
        self._wait_seconds = wait_seconds
        self._cancelled = threading.Event()
        self.error: FedSamError | None = None

    def run(self) -> None:
        try:
            self._coordinator.run(
                self._rounds,
                tell=lambda line: console.print(line, markup=False),
                wait_seconds=self._wait_seconds,
                cancelled=self._cancelled.is_set,
            )
        except FedSamError as error:
            self.error = error

    def cancel(self) -> None:
        self._cancelled.set()


class _Story:
    """The unattended demo, phase by phase."""

    def __init__(self, plan: DemoPlan, out: Path, work: Path) -> None:
        self.plan = plan
        self.out = out
        self.work = work
        self.seconds: dict[str, float] = {}

    def run(self) -> None:
        with self._timed("measure before"):
            before = [_measure(site) for site in self.plan.sites]
        with _federation(self.plan, self.work) as (coordinator, sites):
            window = ScriptedWindow(self.plan, self.out)
            try:
                with self._timed("annotate"):
                    annotated = window.annotate()
                self._federate(window, coordinator)
                with self._timed("use the new model"):
                    window.propose(self.plan.shown)
                    window.screenshot("proposal")
                with self._timed("leave"):
                    self._leave(window)
            finally:
                window.close()
            for site in sites:
                site.refresh()
            sent = [site.state.bytes_sent for site in sites]
            rounds = sum(result.aggregated for result in coordinator.results())
        with self._timed("measure after"):
            after = [_measure(site) for site in self.plan.sites]
        reports = [
            demo_report.SiteReport(
                site.name,
                first.mean_dice("none"),
                last.mean_dice("none"),
                first.mean_dice("point"),
                last.mean_dice("point"),
                count,
                _model_in_use(site),
            )
            for site, first, last, count in zip(self.plan.sites, before, after, sent, strict=True)
        ]
        demo_report.show(reports, self.seconds, rounds)
        path = demo_report.write(
            self.out,
            self.plan,
            reports,
            seconds=self.seconds,
            rounds=rounds,
            window={"annotated": annotated},
        )
        console.print(f"Summary and screenshots: {path.parent}", markup=False)

    @contextlib.contextmanager
    def _timed(self, phase: str) -> Iterator[None]:
        console.print(f"{phase} ...", markup=False)
        started = time.perf_counter()
        yield
        self.seconds[phase] = round(time.perf_counter() - started, 1)

    def _federate(self, window: ScriptedWindow, coordinator: Coordinator) -> None:
        state = window.widget.site.state
        rounds = _Rounds(coordinator, self.plan.size.rounds, _JOIN_SECONDS)
        with self._timed("join"):
            window.widget.federation_toggle.setChecked(True)
            window.wait(
                lambda: state.phase in (Phase.WAITING, Phase.TRAINING, Phase.ERROR),
                "the coordinator",
                seconds=_JOIN_SECONDS,
            )
            if state.phase is Phase.ERROR:
                raise FedSamError(f"The window could not join: {state.message}")
            window.screenshot("joined", federation=True)
        with self._timed("rounds"):
            rounds.start()
            window.wait(
                lambda: state.phase is Phase.TRAINING or not rounds.is_alive(),
                "a round",
                seconds=_ROUND_SECONDS,
            )
            window.screenshot("training", federation=True)
            window.wait(lambda: not rounds.is_alive(), "the rounds", seconds=_ROUND_SECONDS)
            if rounds.error is not None:
                raise rounds.error
            window.wait(
                lambda: state.phase is Phase.UP_TO_DATE and window.widget.idle,
                "the new model",
                seconds=_JOIN_SECONDS,
            )
            self._wait_for_model(window)
            window.screenshot("up-to-date", federation=True)

    def _wait_for_model(self, window: ScriptedWindow) -> None:
        """Wait until the window uses the version that the site has made active."""
        active = ModelSource(self.plan.sites[0].folder).active_version
        if active is None:
            raise FedSamError(
                "No round's model did as well as the base model on the window's held-out cases."
            )
        session = window.widget.session
        window.wait(
            lambda: session.model is not None and session.model.version == active,
            "the new model in the window",
            seconds=_JOIN_SECONDS,
        )

    def _leave(self, window: ScriptedWindow) -> None:
        window.widget.federation_toggle.setChecked(False)
        window.wait(
            lambda: window.widget.site.state.phase is Phase.OFFLINE and window.widget.idle,
            "leaving",
            seconds=60,
        )
        window.screenshot("left", federation=True)


def _measure(site: DemoSite) -> Evaluation:
    """Measure the model that a site uses now on its held-out images."""
    predictor = ModelSource(site.folder).load().predictor
    return evaluate(predictor, site.held_out, ("none", "point"))


def _model_in_use(site: DemoSite) -> str:
    round_ = ModelSource(site.folder).load().round
    return "base model" if round_ is None else f"round {round_}"


def _open_for_a_person(plan: DemoPlan, work: Path, scan: Path | None) -> None:
    import napari

    with _federation(plan, work) as (coordinator, _):
        rounds = _Rounds(coordinator, _INTERACTIVE_ROUNDS, None)
        rounds.start()
        _, widget = open_window(plan.sites[0].folder, show=True)
        widget.open_scan(scan or plan.tasks[0].scan)
        console.print(
            "Click on the structure, accept some masks, then switch on 'Take part': the two other "
            "sites are waiting. Close the window to end the demo.",
            markup=False,
        )
        try:
            napari.run()
        finally:
            rounds.cancel()
            rounds.join(timeout=30)
