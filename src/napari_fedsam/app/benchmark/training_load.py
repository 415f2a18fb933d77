"""Local training without an end: what a site's machine does in the background.

Run as a process of its own (`python -m napari_fedsam.app.benchmark.training_load`); it says
"training" once the first step is done, and goes on until it is ended or its input is closed.
"""

import contextlib
import subprocess
import sys
import threading
from collections.abc import Iterator

import numpy as np
import psutil

from napari_fedsam.child_process import end_with_standard_input
from napari_fedsam.process_priority import give_way


@contextlib.contextmanager
def training_in_background() -> Iterator[None]:
    """Run local training in another process at low priority while the block lasts."""
    with subprocess.Popen(
        [sys.executable, "-m", __name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            if process.stdout is None or process.stdout.readline().strip() != "training":
                raise RuntimeError("the background training did not start")
            yield
        finally:
            process.kill()


def train_forever() -> None:
    """Train a personalised LiteMedSAM on slices of the embedded sample, again and again."""
    from napari_fedsam.annotation.sample import SAMPLE_STRUCTURES, load_sample
    from napari_fedsam.imaging.window import apply_window, default_window
    from napari_fedsam.personalization.personalised_model import build_personalised_model
    from napari_fedsam.personalization.recipe import Recipe
    from napari_fedsam.training.feature_cache import FeatureCache
    from napari_fedsam.training.local_update import local_update
    from napari_fedsam.training.samples import TrainingSample

    give_way(psutil.Process())
    sample, structure = load_sample(), SAMPLE_STRUCTURES[0]
    pixels = apply_window(sample.scan.pixels, default_window(sample.scan))
    masks = sample.mask(structure)
    chosen = np.linspace(0.3, 0.7, 6) * len(pixels)
    samples = [
        TrainingSample(str(z), "sample", pixels[z], masks[z], structure.value)
        for z in chosen.astype(int)
    ]
    model = build_personalised_model(Recipe(name="load", structures=SAMPLE_STRUCTURES))
    told = threading.Event()

    def tell(_: object) -> None:
        if not told.is_set():
            told.set()
            sys.stdout.write("training\n")
            sys.stdout.flush()

    cache = FeatureCache()
    while True:
        local_update(model, samples, seed=0, progress=tell, cache=cache)


if __name__ == "__main__":
    end_with_standard_input()
    train_forever()
