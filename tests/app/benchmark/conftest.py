"""A tiny task of two sites on disk."""

import logging
from pathlib import Path

import numpy as np
import pytest
from flwr.supercore.logger import FLOWER_LOGGER
from PIL import Image

# Flower logs its mapping-like records as lone arguments, which logging cannot format; elsewhere
# that is a line on standard error, pytest's handler makes it an exception.
FLOWER_LOGGER.setLevel(logging.WARNING)


@pytest.fixture(scope="session")
def manifest(tmp_path_factory) -> Path:
    """Bright discs; the second site's are darker."""
    folder = tmp_path_factory.mktemp("task")
    rows = ["task,site,split,image,mask,group"]
    random = np.random.default_rng(5)
    y, x = np.mgrid[:48, :64]
    for site, level in (("north", 180), ("south", 120)):
        for split, count in (("train", 2), ("test", 2)):
            for number in range(count):
                name = f"{site}-{split}-{number}"
                centre = random.integers(14, 34, 2)
                disc = (x - centre[0] - 8) ** 2 + (y - centre[1]) ** 2 < 110
                pixels = random.integers(0, 60, disc.shape) + level * disc
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{name}.png")
                Image.fromarray((255 * disc).astype(np.uint8)).save(folder / f"{name}-mask.png")
                rows.append(f"disc,{site},{split},{name}.png,{name}-mask.png,{name}")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder / "manifest.csv"
