"""What every test gets: two threads, a home of its own, and the way to the external images."""

import os
from pathlib import Path

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
