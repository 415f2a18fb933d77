"""Whether a new model is good enough to be used: its Dice on a site's held-out cases."""

from collections.abc import Sequence

from napari_fedsam.sam.predictor import Predictor
from napari_fedsam.sam.protocol import PromptableModel
from napari_fedsam.training.evaluation import JUDGED_PROMPTS, Evaluation, evaluate
from napari_fedsam.training.feature_cache import CachedEncoder, FeatureCache
from napari_fedsam.training.samples import TrainingSample


def judge(
    model: PromptableModel, held_out: Sequence[TrainingSample], cache: FeatureCache
) -> Evaluation:
    """Segment the held-out cases under every kind of prompt that counts, where the model is."""
    encoder = CachedEncoder(model, cache)
    predictor = Predictor(model, device=str(encoder.device))
    return evaluate(predictor, held_out, JUDGED_PROMPTS, encode=encoder.encode)


def does_no_worse(candidate: float | None, present: float | None) -> bool:
    """Whether a new model may take the place of the one in use.

    Parameters
    ----------
    candidate, present : float or None
        Mean Dice of the new model and of that in use (see `Evaluation.overall_dice`), None where
        nothing could be measured: a new model that was not measured may not.
    """
    return candidate is not None and candidate >= (present or 0.0)
