"""The demo's hospitals: from the embedded sample by simulated scanners, or from a manifest."""

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import SimpleITK as sitk

from napari_fedsam.annotation.sample import SAMPLE_STRUCTURES, load_sample
from napari_fedsam.app.scanner_model import SCANNERS, simulate_scanner
from napari_fedsam.app.slice_split import split_slices
from napari_fedsam.cases.case import NewCase, Split, Structure
from napari_fedsam.cases.store import CaseStore
from napari_fedsam.imaging.scan import Scan
from napari_fedsam.imaging.window import apply_window, default_window
from napari_fedsam.personalization.recipe import Recipe, TrainingOptions
from napari_fedsam.training.errors import ManifestError
from napari_fedsam.training.manifest import ManifestRow, load_row, read_manifest
from napari_fedsam.training.samples import TrainingSample
from napari_fedsam.training.segmentation_task import spread, train_and_val

_T = TypeVar("_T")


@dataclass(frozen=True)
class DemoSize:
    """How much of the data the demo uses.

    Parameters
    ----------
    rounds : int
    train, val, held_out : int
        Cases per site, at most.
    in_window : int
        Training cases that the first site annotates in the window.
    epochs : float
        Passes per round.
    """

    rounds: int
    train: int
    val: int
    held_out: int
    in_window: int
    epochs: float


SAMPLE_SIZE = DemoSize(2, train=14, val=3, held_out=8, in_window=3, epochs=14)
MANIFEST_SIZE = DemoSize(2, train=32, val=6, held_out=12, in_window=2, epochs=6)
QUICK_SIZE = DemoSize(1, train=4, val=1, held_out=2, in_window=1, epochs=6)


@dataclass(frozen=True, eq=False)
class WindowTask:
    """One slice that the first site annotates in the window.

    Parameters
    ----------
    scan : Path
        What to open.
    slice_index : int
        Slice along display axis 0.
    mask : bool array of shape (H, W)
        The reference, which stands for the annotator's judgement.
    """

    scan: Path
    slice_index: int
    mask: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]


@dataclass(frozen=True, eq=False)
class DemoSite:
    """A hospital of the demo.

    Parameters
    ----------
    name : str
    folder : Path
        The site's home folder, its earlier cases already in it.
    held_out : tuple of TrainingSample
        What Dice is measured on; no site ever trains on it.
    """

    name: str
    folder: Path
    held_out: tuple[TrainingSample, ...]


@dataclass(frozen=True, eq=False)
class DemoPlan:
    """Everything that the demo needs to know of its data.

    Parameters
    ----------
    title, note : str
        What is shown and reported; the note says what is simulated or left out.
    recipe : Recipe
    size : DemoSize
    sites : tuple of DemoSite
        The first is the one with the window.
    tasks : tuple of WindowTask
        What is annotated in the window.
    shown : WindowTask
        A held-out slice, for the proposal's picture.
    """

    title: str
    note: str
    recipe: Recipe
    size: DemoSize
    sites: tuple[DemoSite, ...]
    tasks: tuple[WindowTask, ...]
    shown: WindowTask


def sample_plan(folder: Path, *, quick: bool) -> DemoPlan:
    """Make three simulated hospitals from the embedded head MR.

    Every site sees the sample through a scanner model of its own. The held-out slices are a slab at
    least 10 mm away from every training slice.

    Parameters
    ----------
    folder : Path
        Where the sites' folders and the simulated scans go.
    quick : bool
    """
    size = QUICK_SIZE if quick else SAMPLE_SIZE
    sample = load_sample()
    structure = SAMPLE_STRUCTURES[1]
    orientation = sample.scan.orientation
    masks = orientation.to_display(sample.mask(structure))
    shown = masks.sum(axis=(1, 2)) >= 40
    split = split_slices(shown, orientation.display_spacing[0], sites=len(SCANNERS))
    held_out = spread(split.held_out, size.held_out)
    scans = folder / "scans"
    scans.mkdir(parents=True, exist_ok=True)
    sites, tasks = [], []
    shown_path = scans / "simulated_scanner_A.nii.gz"
    for number, scanner in enumerate(SCANNERS):
        scan = simulate_scanner(sample.scan, scanner, seed=number)
        pixels = orientation.to_display(scan.pixels)
        window = default_window(scan)
        train = spread([i for i in split.train[number] if shown[i]], size.train + size.val)
        val = spread(train, size.val)
        learned = [index for index in train if index not in val]
        in_window = spread(learned, size.in_window) if number == 0 else []
        if number == 0:
            _write_scan(scan, shown_path)
            tasks = [WindowTask(shown_path, index, masks[index]) for index in in_window]
        site = folder / "sites" / scanner.name.replace(" ", "_")
        store = CaseStore(site / "cases")
        for index in train:
            if index in in_window:
                continue
            kind: Split = "val" if index in val else "train"
            store.accept(
                NewCase(
                    image=pixels[index],
                    mask=masks[index],
                    structure=structure,
                    window=(window.low, window.high),
                    # One scan serves as two, for a site's held-out cases are told by scan.
                    scan_key=f"{scan.fingerprint}:{kind}",
                    spacing=orientation.display_spacing[1:],
                    modality="MR",
                    plane="axial",
                    slice_index=index,
                    annotator="simulated",
                    split=kind,
                )
            )
        samples = [
            TrainingSample(
                f"{scanner.name}, slice {index}",
                scanner.name,
                apply_window(pixels[index], window),
                masks[index],
                structure.value,
            )
            for index in held_out
        ]
        sites.append(DemoSite(scanner.name, site, tuple(samples)))
    return DemoPlan(
        "White matter in a head MR, three simulated hospitals",
        "All sites are simulated: one average brain (ICBM 152) seen through three scanner models. "
        "The numbers show that the loop works and say nothing about patients.",
        _recipe("White matter (demo)", structure, size, len(sites)),
        size,
        tuple(sites),
        tuple(tasks),
        WindowTask(shown_path, held_out[len(held_out) // 2], masks[held_out[len(held_out) // 2]]),
    )


def manifest_plan(folder: Path, data: Path, task: str, *, quick: bool) -> DemoPlan:
    """Make each of a task's sites a hospital.

    Parameters
    ----------
    folder : Path
        Where the sites' folders go.
    data : Path
        The manifest.
    task : str
    quick : bool

    Raises
    ------
    ManifestError
        When the manifest, or an image that it names, cannot be used.
    """
    size = QUICK_SIZE if quick else MANIFEST_SIZE
    structure = Structure(value=1, name=task.replace("_", " "), color="#ffb000")
    rows = read_manifest(data, task)
    names = list(dict.fromkeys(row.site for row in rows))
    sites, tasks, shown = [], [], None
    for number, name in enumerate(names):
        own = [row for row in rows if row.site == name]
        train, val = train_and_val(own)
        train, val = spread(train, size.train), spread(val, size.val)
        test = spread([row for row in own if row.split == "test"], size.held_out)
        site = folder / "sites" / name
        store = CaseStore(site / "cases")
        in_window = train[: size.in_window] if number == 0 else []
        if number == 0:
            tasks = [_window_task(row, structure) for row in in_window]
            shown = _window_task(test[0], structure)
        for kind, chosen in (("train", train[len(in_window) :]), ("val", val)):
            for row in chosen:
                _keep_row(store, row, structure, "val" if kind == "val" else "train")
        held_out = tuple(load_row(row, structure.value) for row in test)
        sites.append(DemoSite(name, site, held_out))
    if shown is None or len(sites) < 2:
        raise ManifestError(
            f"The task {task} of {data} has {len(sites)} site: a federation needs two or more."
        )
    return DemoPlan(
        f"{task}, {len(sites)} sites",
        f"A subset of the data: at most {size.train} training, {size.val} validation and "
        f"{size.held_out} held-out images of each site.",
        _recipe(f"{task} (demo)", structure, size, len(sites)),
        size,
        tuple(sites),
        tuple(tasks),
        shown,
    )


def _recipe(name: str, structure: Structure, size: DemoSize, sites: int) -> Recipe:
    return Recipe(
        name=name,
        structures=(structure,),
        minimum_sites=sites,
        rounds=size.rounds,
        training=TrainingOptions(epochs=size.epochs),
    )


def _window_task(row: ManifestRow, structure: Structure) -> WindowTask:
    return WindowTask(row.image, 0, load_row(row, structure.value).mask)


def _keep_row(store: CaseStore, row: ManifestRow, structure: Structure, split: Split) -> None:
    sample = load_row(row, structure.value)
    store.accept(
        NewCase(
            image=sample.image,
            mask=sample.mask,
            structure=structure,
            window=(0, 255),
            scan_key=row.label,
            patient_key=f"{row.site}:{row.group}",
            annotator="reference",
            split=split,
        )
    )


def _write_scan(scan: Scan, path: Path) -> None:
    image = sitk.GetImageFromArray(scan.pixels)
    scan.geometry.stamp(image)
    sitk.WriteImage(image, str(path))
