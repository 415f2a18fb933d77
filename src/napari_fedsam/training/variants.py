"""Augmentation as a few fixed variants per case, so that their encoder prefix can be cached."""

import hashlib
from dataclasses import replace

import numpy as np

from napari_fedsam.training.samples import TrainingSample


def variant(sample: TrainingSample, index: int, *, seed: int) -> TrainingSample:
    """Return a sample's augmented variant.

    Variant 0 is the sample itself; the others are mirrored or turned upside down by chance and
    change brightness and contrast (gamma 0.7 to 1.4), deterministic in (seed, image, index), so
    that all structures of an image change alike.

    Parameters
    ----------
    sample : TrainingSample
    index : int
    seed : int
    """
    if index == 0:
        return sample
    digest = hashlib.sha256(sample.image.tobytes()).digest()[:8]
    random = np.random.default_rng([seed, index, *digest])
    image, mask = sample.image, sample.mask
    mirrored, flipped = random.random(2) < (0.75, 0.25)
    if mirrored:
        image, mask = image[:, ::-1], mask[:, ::-1]
    if flipped:
        image, mask = image[::-1], mask[::-1]
    gamma = float(np.exp(random.uniform(np.log(0.7), np.log(1.4))))
    table = (255 * (np.arange(256) / 255) ** gamma + 0.5).astype(np.uint8)
    return replace(
        sample, image=np.ascontiguousarray(table[image]), mask=np.ascontiguousarray(mask)
    )
