"""What rounds cost against the number of sites: simulated, with real nodes, or none at all.

The sites are tiny (two images of 64 pixels), and train one step of LoRA and the decoder: what is
measured is everything else, and what is sent is as large as in any federation of LiteMedSAM.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Literal

import numpy as np
import psutil

from napari_fedsam.app.benchmark.memory_watch import MemoryWatch
from napari_fedsam.cases.case import NewCase, Split, Structure
from napari_fedsam.cases.store import CaseStore
from napari_fedsam.errors import FedSamError
from napari_fedsam.federation.checkpoints import CheckpointStore
from napari_fedsam.federation.coordinator import Coordinator
from napari_fedsam.federation.coordinator_processes import SUPEREXEC, SUPERLINK
from napari_fedsam.federation.coordinator_settings import CoordinatorFiles
from napari_fedsam.federation.coordinator_setup import Reach
from napari_fedsam.federation.message_size import round_bytes
from napari_fedsam.federation.processes import ProcessTable
from napari_fedsam.federation.round_result import RoundResult
from napari_fedsam.federation.site import Site
from napari_fedsam.federation.site_files import SiteFiles
from napari_fedsam.personalization import MethodOptions, Recipe, build_personalised_model
from napari_fedsam.personalization.recipe import TrainingOptions

Engine = Literal["coordinator", "simulation", "deployment"]

_STRUCTURE = Structure(value=1, name="disc", color="#e69f00")
_SIDE = 64
_JOIN_SECONDS = 600.0


@dataclass(frozen=True)
class ScaleResult:
    """What rounds with so many sites cost.

    Attributes
    ----------
    engine : {"coordinator", "simulation", "deployment"}
    sites, rounds : int
    seconds : float
        Of a round, the median.
    training_seconds : float
        What of that is training, the median: all sites' training over the processors in the
        simulation, the longest training in the deployment, where all train at once, and none
        where only the coordinator works.
    bytes_up, bytes_down : int
        Of a round, as serialised, over all sites; in the first, nearly twice as many come down.
    peak_mib : float
        Of the ServerApp's process; in the simulation that is SuperLink's, too.
    first_round_mib, last_round_mib : float
        Peaks in these rounds.
    superlink_mib : float or None
        Peak of SuperLink where it has a process of its own.
    dice : float
        Mean held-out Dice after the last round: that every site has judged shows that it worked.
    """

    engine: Engine
    sites: int
    rounds: int
    seconds: float
    training_seconds: float
    bytes_up: int
    bytes_down: int
    peak_mib: float
    first_round_mib: float
    last_round_mib: float
    superlink_mib: float | None
    dice: float

    @property
    def overhead_seconds(self) -> float:
        """Of a round: what is not training."""
        return self.seconds - self.training_seconds


def scale_recipe(sites: int, rounds: int) -> Recipe:
    """Return the recipe of a federation in which training takes next to no time."""
    return Recipe(
        name="Scale",
        method="lora_fedavg",
        structures=(_STRUCTURE,),
        options=MethodOptions(blocks=1, lora_rank=2),
        training=TrainingOptions(epochs=1, batch_size=1, augmentations=0),
        rounds=rounds,
        minimum_sites=sites,
    )


def measure_coordinator(sites: int, rounds: int, folder: Path) -> ScaleResult:
    """Run rounds of made-up sites that answer at once, so that only the coordinator works.

    Parameters
    ----------
    sites, rounds : int
    folder : Path
        Does not exist; 16 MB are written for each site, and removed with the round.
    """
    coordinator = folder / "coordinator"
    coordinator.mkdir(parents=True)
    scale_recipe(sites, rounds).write(CoordinatorFiles(coordinator).recipe)
    watch = _watched(folder, coordinator, "coordinator_load", str(sites), str(rounds))
    return _result("coordinator", coordinator, sites, watch)


def measure_simulation(sites: int, rounds: int, folder: Path) -> ScaleResult:
    """Run rounds under Flower's simulation.

    Parameters
    ----------
    sites, rounds : int
    folder : Path
        Does not exist; some 30 MB are written for each site and round.

    Raises
    ------
    FedSamError
        When Flower's simulation is not installed, or ends early.
    """
    recipe = scale_recipe(sites, rounds)
    coordinator, home = folder / "coordinator", folder / "sites"
    coordinator.mkdir(parents=True)
    recipe.write(CoordinatorFiles(coordinator).recipe)
    for number in range(sites):
        files = SiteFiles(home / f"{number:04d}")
        files.create()
        recipe.write(files.recipe)
        _add_cases(files.cases, number)
    watch = _watched(folder, coordinator, "simulated_rounds", str(home), str(rounds))
    return _result("simulation", coordinator, sites, watch)


def measure_deployment(sites: int, rounds: int, folder: Path) -> ScaleResult:
    """Run rounds with a real SuperLink, and a real SuperNode for each site, on loopback.

    Behind nginx, where that is installed.

    Parameters
    ----------
    sites, rounds : int
    folder : Path
        Does not exist.

    Raises
    ------
    FederationError
        When the sites do not connect or the rounds fail.
    """
    recipe = scale_recipe(sites, rounds)
    coordinator = Coordinator(folder / "coordinator")
    coordinator.init(recipe, _reach())
    with contextlib.ExitStack() as running:
        running.callback(coordinator.stop)
        coordinator.start()
        homes = [folder / "sites" / f"{number:04d}" for number in range(sites)]
        for number, home in enumerate(homes):
            site = Site(home)
            site.import_invitation(coordinator.invite(home.name))
            _add_cases(site.files.cases, number)
            coordinator.approve(home.name, site.public_key)
            running.callback(site.leave)
            site.join(threads=1)
        superlink, superexec = (_process(coordinator, name) for name in (SUPERLINK, SUPEREXEC))
        stage = _rounds_done(coordinator.folder)
        with (
            MemoryWatch(lambda: _serverapp_below(superexec), stage) as watch,
            MemoryWatch(lambda: superlink, stage) as superlink_watch,
        ):
            coordinator.run(rounds, wait_seconds=_JOIN_SECONDS)
    return _result("deployment", coordinator.folder, sites, watch, superlink_watch.peak)


def _watched(folder: Path, coordinator: Path, module: str, *arguments: str) -> MemoryWatch:
    """Run a module of this package on a coordinator's folder, and watch its memory."""
    log = folder / f"{module}.log"
    command = [sys.executable, "-m", f"napari_fedsam.app.benchmark.{module}", str(coordinator)]
    with log.open("wb") as output:
        process = psutil.Popen([*command, *arguments], stdout=output, stderr=subprocess.STDOUT)
        with MemoryWatch(lambda: process, _rounds_done(coordinator)) as watch:
            code = process.wait()
    if code != 0:
        last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
        raise FedSamError(f"The rounds ended early: {' '.join(last)}")
    return watch


def _reach() -> Reach:
    ports = _free_ports(2)
    if shutil.which("nginx") is None:
        return Reach(port=ports[0])
    return Reach(port=ports[0], superlink_port=ports[1], proxy="nginx", listen="127.0.0.1")


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as probes:
        opened = [probes.enter_context(socket.socket()) for _ in range(count)]
        for probe in opened:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in opened]


def _add_cases(folder: Path, seed: int) -> None:
    """Give a site a disc on noise to learn from, and one to be judged on."""
    store = CaseStore(folder)
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:_SIDE, :_SIDE]
    splits: tuple[Split, ...] = ("train", "val")
    for split in splits:
        centre = random.integers(_SIDE // 3, 2 * _SIDE // 3, 2)
        mask = np.hypot(rows - centre[0], columns - centre[1]) < _SIDE / 5
        image = (random.normal(60, 10, mask.shape) + 100 * mask).clip(0, 255).astype(np.uint8)
        store.accept(
            NewCase(
                image=image,
                mask=mask,
                structure=_STRUCTURE,
                window=(0, 255),
                scan_key=f"{seed} {split}",
                patient_key=f"{seed} {split}",
                annotator="reference",
                split=split,
            )
        )


def _rounds_done(coordinator: Path) -> Callable[[], int]:
    store = CheckpointStore(coordinator)
    return lambda: sum(result.complete for result in store.results())


def _process(coordinator: Coordinator, name: str) -> psutil.Process:
    return psutil.Process(ProcessTable(coordinator.folder).records()[name].pid)


def _serverapp_below(superexec: psutil.Process) -> psutil.Process | None:
    with contextlib.suppress(psutil.Error):
        for process in superexec.children(recursive=True):
            if "flwr-serverapp" in " ".join(process.cmdline()):
                return process
    return None


def _result(
    engine: Engine,
    coordinator: Path,
    sites: int,
    watch: MemoryWatch,
    superlink_mib: float | None = None,
) -> ScaleResult:
    recipe = Recipe.read(CoordinatorFiles(coordinator).recipe)
    results = CheckpointStore(coordinator).results()
    if [result.updates for result in results] != [sites] * recipe.rounds:
        raise FedSamError(
            f"The {engine} of {sites} sites did not go through: "
            f"{'; '.join(result.summary for result in results) or 'there was no round'}."
        )
    sizes = round_bytes(build_personalised_model(recipe))
    return ScaleResult(
        engine=engine,
        sites=sites,
        rounds=recipe.rounds,
        seconds=median(result.seconds for result in results),
        training_seconds=median(_training_seconds(engine, result) for result in results),
        bytes_up=sizes.up * sites,
        bytes_down=sizes.down * sites,
        peak_mib=watch.peak,
        first_round_mib=watch.peaks.get(0, 0.0),
        last_round_mib=watch.peaks.get(recipe.rounds - 1, 0.0),
        superlink_mib=superlink_mib,
        dice=results[-1].mean_dice or 0.0,
    )


def _training_seconds(engine: Engine, result: RoundResult) -> float:
    seconds = [site.training_seconds for site in result.sites]
    if engine == "coordinator":
        return 0.0
    if engine == "deployment":
        return max(seconds)
    return sum(seconds) / min(len(seconds), os.cpu_count() or 1)
