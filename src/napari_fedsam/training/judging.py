"""Whether a new model is good enough to be used: its Dice on a site's held-out cases."""

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from napari_fedsam.sam.prediction import ImageEmbedding
from napari_fedsam.sam.predictor import Predictor
from napari_fedsam.sam.protocol import PromptableModel
from napari_fedsam.training.evaluation import JUDGED_PROMPTS, Evaluation, evaluate
from napari_fedsam.training.feature_cache import CachedEncoder, FeatureCache
from napari_fedsam.training.progress import Progress
from napari_fedsam.training.samples import TrainingSample, image_key

_Encode = Callable[[NDArray[np.uint8]], ImageEmbedding]


def judge(
    model: PromptableModel,
    held_out: Sequence[TrainingSample],
    cache: FeatureCache,
    progress: Callable[[Progress], None] | None = None,
) -> Evaluation:
    """Segment the held-out cases under every kind of prompt that counts, where the model is."""
    encoder = CachedEncoder(model, cache)
    predictor = Predictor(model, device=str(encoder.device))
    encode = _once_an_image(encoder.encode, held_out)
    return evaluate(predictor, held_out, JUDGED_PROMPTS, encode=encode, progress=progress)


def does_no_worse(candidate: float | None, present: float | None) -> bool:
    """Whether a new model may take the place of the one in use.

    Parameters
    ----------
    candidate, present : float or None
        Mean Dice of the new model and of that in use (see `Evaluation.overall_dice`), None where
        nothing could be measured: a new model that was not measured may not.
    """
    return candidate is not None and candidate >= (present or 0.0)


def _once_an_image(encode: _Encode, samples: Sequence[TrainingSample]) -> _Encode:
    """Encode an image in which several structures were segmented only once."""
    to_come = Counter(image_key(sample.image) for sample in samples)
    kept: dict[bytes, ImageEmbedding] = {}

    def encoded(image: NDArray[np.uint8]) -> ImageEmbedding:
        key = image_key(image)
        to_come[key] -= 1
        embedding = kept.pop(key, None) or encode(image)
        if to_come[key]:
            kept[key] = embedding
        return embedding

    return encoded
