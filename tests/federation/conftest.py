"""Helpers of the federation tests."""

import logging
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.supercore.logger import FLOWER_LOGGER

from napari_fedsam.cases.case import NewCase, Structure
from napari_fedsam.cases.store import CaseStore
from napari_fedsam.federation.coordinator import Coordinator
from napari_fedsam.federation.invitation import Invitation
from napari_fedsam.federation.keys import ensure_signing_key
from napari_fedsam.federation.site_files import SiteFiles
from napari_fedsam.personalization.personalised_model import build_personalised_model
from napari_fedsam.personalization.recipe import MethodOptions, Recipe, TrainingOptions
from napari_fedsam.training.versions import VersionStore

# Flower logs its mapping-like records as lone arguments, which logging cannot format; elsewhere
# that is a line on standard error, pytest's handler makes it an exception.
FLOWER_LOGGER.setLevel(logging.WARNING)


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    """Return a recipe that trains in a second: one small block, one short epoch."""
    return Recipe(
        name="Test disc",
        structures=(Structure(value=1, name="disc", color="#ff0000"),),
        options=MethodOptions(blocks=1, lora_rank=2, experts=2, expert_width=4, top_k=1),
        training=TrainingOptions(epochs=1, batch_size=2, augmentations=0),
    )


@pytest.fixture(scope="module")
def start(recipe: Recipe) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Return the shared and the local parameters before any training."""
    model = build_personalised_model(recipe)
    return model.shared_state(), model.local_state()


@pytest.fixture(scope="session")
def newest_version() -> Callable[[SiteFiles], Path]:
    """Return a function that gives the folder of a site's newest version."""

    def newest(files: SiteFiles) -> Path:
        return files.versions / f"{VersionStore(files.versions).versions()[-1].number:04d}"

    return newest


@pytest.fixture(scope="session")
def planted() -> dict[str, str]:
    """Return what identifies people in a case and must never leave the site."""
    return {
        "scan_key": "SCAN-1.2.840.4711",
        "patient_key": "SMITH^JOHN",
        "annotator": "Dr Planted",
    }


@pytest.fixture
def wait_until() -> Callable[..., None]:
    """Return a bounded wait: other processes answer when they are ready, not after a fixed time."""

    def wait(condition: Callable[[], bool], seconds: float = 300.0, what: str = "") -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                pytest.fail(f"did not happen within {seconds:.0f} s: {what}")
            time.sleep(0.1)

    return wait


@pytest.fixture(scope="session")
def add_cases(recipe: Recipe) -> Callable[..., CaseStore]:
    """Return a function that gives a site discs on noise, each from a scan of its own."""

    def add(site: Path, *, train: int = 2, val: int = 1, seed: int = 0, **scan: str) -> CaseStore:
        store = CaseStore(site / "cases")
        random = np.random.default_rng(seed)
        for number in range(train + val):
            rows, columns = np.mgrid[:48, :64]
            centre = random.integers(16, 32, 2)
            mask = np.hypot(rows - centre[0], columns - centre[1]) < 10
            image = (random.normal(60, 10, mask.shape) + 100 * mask).clip(0, 255).astype(np.uint8)
            store.accept(
                NewCase(
                    image=image,
                    mask=mask,
                    structure=recipe.structures[0],
                    window=(0, 255),
                    scan_key=f"{scan.get('scan_key', 'scan')} {seed} {number}",
                    patient_key=f"{scan.get('patient_key', 'patient')} {seed} {number}",
                    annotator=scan.get("annotator", ""),
                    split="train" if number < train else "val",
                )
            )
        return store

    return add


@pytest.fixture(scope="session")
def invite() -> Callable[..., Invitation]:
    """Return a function that invites a site, with changes that the coordinator did sign."""

    def invite(coordinator: Coordinator, site: str = "a site", **changes: str) -> Invitation:
        key = ensure_signing_key(coordinator.files.signing_key)
        return coordinator.invite(site).model_copy(update=changes).signed(key)

    return invite
