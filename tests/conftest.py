"""What every test gets: two threads, a home of its own, a picture, and the way to external ones."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import HealthCheck, settings

# Set before anything imports torch, OpenBLAS or ITK, and inherited by the processes that tests
# start: the machine's cores are shared by them all, and sums of floats depend on the threads.
for _variable in (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
):
    os.environ.setdefault(_variable, "2")

# A busy machine must not fail a test.
settings.register_profile(
    "unhurried",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
    # The gate asks the same question every time; developers' runs go on exploring.
    derandomize="CI" in os.environ,
)
settings.load_profile("unhurried")

DATA_VARIABLE = "NAPARI_FEDSAM_DATA"


def pytest_collection_modifyitems(config, items) -> None:
    """Leave the slow tests to those who ask for the faults."""
    if "faults" in config.option.markexpr:
        return
    skip = pytest.mark.skip(reason="slow: runs with 'make test-faults'")
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(skip)


@pytest.fixture(autouse=True)
def isolated_home(tmp_path_factory, monkeypatch) -> Path:
    """Keep the user's own cases, models and keys out of every test."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("NAPARI_FEDSAM_HOME", str(home))
    return home


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Return the folder of external images and masks; skip the test where there is none."""
    value = os.environ.get(DATA_VARIABLE)
    if not value:
        pytest.skip(f"{DATA_VARIABLE} is not set")
    folder = Path(value)
    if not (folder / "manifest.csv").is_file():
        pytest.skip(f"{DATA_VARIABLE} names a folder without manifest.csv")
    return folder


@dataclass(frozen=True, eq=False)
class Scene:
    """A bright ellipse on a textured background, joined at its right end by a second one."""

    image: Any
    ellipse: Any
    neighbour: Any
    box: tuple[float, float, float, float]
    centre: tuple[float, float]
    neighbour_centre: tuple[float, float]


@pytest.fixture(scope="session")
def scene() -> Scene:
    """Return a picture that anyone can outline, with both of its masks."""
    # Not at the top: they look at the variables set there.
    import numpy as np
    from scipy import ndimage

    rows, columns = np.mgrid[:150, :200]
    ellipse = ((columns - 75) / 38) ** 2 + ((rows - 80) / 25) ** 2 <= 1
    neighbour = (((columns - 132) / 22) ** 2 + ((rows - 74) / 18) ** 2 <= 1) & ~ellipse
    random = np.random.default_rng(3)
    texture = ndimage.gaussian_filter(random.normal(0, 1, (150, 200)), 2.5)
    pixels = 70 + 90 * texture + 95 * ellipse + 80 * neighbour
    pixels = ndimage.gaussian_filter(pixels, 0.8) + random.normal(0, 4, pixels.shape)
    image = np.clip(pixels, 0, 255).astype(np.uint8)
    return Scene(image, ellipse, neighbour, (37, 55, 113, 105), (75, 80), (132, 74))


@pytest.fixture(scope="session")
def training_children():
    """Return a function that finds the processes of this one that train."""

    def command(child):
        # A program that has only just begun shows none on Linux.
        while not (words := child.cmdline()):
            pass
        return words

    def find():
        started = psutil.Process().children()
        return [
            child for child in started if "napari_fedsam.training.site_training" in command(child)
        ]

    return find
