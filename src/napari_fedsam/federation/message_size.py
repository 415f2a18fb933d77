"""The bytes that a round costs a site, from real messages as they are serialised."""

from dataclasses import dataclass

from flwr.app import Message, MetricRecord, RecordDict

from napari_fedsam.federation.in_process import payload_of, stand_in_for_a_run
from napari_fedsam.federation.messages import (
    CONFIG_KEY,
    EVALUATE_METRICS,
    METRICS_KEY,
    SHARED_KEY,
    TRAIN_METRICS,
    config_record,
)
from napari_fedsam.federation.packed_parameters import digest_of, pack_parameters
from napari_fedsam.personalization.personalised_model import PersonalisedModel
from napari_fedsam.training.update_rounding import round_update


@dataclass(frozen=True)
class RoundBytes:
    """What one site sends and receives in a round.

    Parameters
    ----------
    up, down : int
        In bytes, for training and judging together.
    first_down : int
        Where the site did not judge the round before.
    """

    up: int
    down: int
    first_down: int


def round_bytes(model: PersonalisedModel) -> RoundBytes:
    """Serialise the messages of a round and return their sizes.

    Parameters
    ----------
    model : PersonalisedModel
    """
    stand_in_for_a_run()
    config = {CONFIG_KEY: config_record(model.recipe.hash, 1)}
    state = model.shared_state()
    shared = {SHARED_KEY: pack_parameters(state)}
    told = config_record(model.recipe.hash, 1, digest=digest_of(state))
    precision = model.recipe.federation.precision
    rounded = state if precision == "float32" else round_update(state, precision)[0]
    update = {SHARED_KEY: pack_parameters(rounded)}
    trained = {METRICS_KEY: MetricRecord(dict.fromkeys(TRAIN_METRICS, 1.0))}
    judged = {METRICS_KEY: MetricRecord(dict.fromkeys(EVALUATE_METRICS, 1.0))}
    judging = _size({**shared, **config})
    return RoundBytes(
        up=_size({**update, **trained, **config}) + _size({**judged, **config}),
        # For training, a site has what it has judged in the round before.
        down=judging + _size({CONFIG_KEY: told}),
        first_down=2 * judging,
    )


def _size(content: dict[str, object]) -> int:
    return len(payload_of(Message(RecordDict(content), 1, "train")))
