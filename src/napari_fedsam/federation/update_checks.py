"""What an update must pass before it is combined with others."""

from collections.abc import Iterable, Mapping
from statistics import median

from flwr.app import Message, RecordDict
from flwr.common.constant import ErrorCode
from torch import Tensor

from napari_fedsam.federation.errors import RefusedMessageError, ReplyCode
from napari_fedsam.federation.messages import (
    EXAMPLES_KEY,
    TRAIN_METRICS,
    SharedSpec,
    check_recipe,
    read_metrics,
    read_shared,
    round_of,
)

# Fewer say nothing about what is usual.
_FEWEST_NORMS = 3
# What Flower answers in place of a site that has gone.
_GONE = {
    ErrorCode.MESSAGE_UNAVAILABLE,
    ErrorCode.REPLY_MESSAGE_UNAVAILABLE,
    ErrorCode.NODE_UNAVAILABLE,
}


def check_update(
    content: RecordDict, recipe_hash: str, spec: SharedSpec, round_number: int
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Return the arrays and numbers of an update that passes by itself.

    Parameters
    ----------
    content : RecordDict
    recipe_hash : str
    spec : mapping of str to (shape, dtype)
        What the recipe lets sites send.
    round_number : int

    Raises
    ------
    RefusedMessageError
        When the recipe, round, names, shapes, dtypes or values are not as they must be.
    """
    check_recipe(content, recipe_hash)
    check_round(content, round_number)
    metrics = read_metrics(content, TRAIN_METRICS)
    if metrics[EXAMPLES_KEY] < 1:
        raise RefusedMessageError(ReplyCode.TOO_FEW_CASES, "An update came from no cases.")
    return read_shared(content, spec), metrics


def check_round(content: RecordDict, round_number: int) -> None:
    """Refuse an answer to another round's instruction, such as one sent again.

    Raises
    ------
    RefusedMessageError
        With code `OTHER_ROUND`.
    """
    if round_of(content) != round_number:
        raise RefusedMessageError(
            ReplyCode.OTHER_ROUND, "An answer does not belong to the present round."
        )


def unusual_norms(
    norms: Mapping[str, float], past: Mapping[str, Iterable[float]], limit: float | None
) -> set[str]:
    """Return the sites whose update is far longer than is usual.

    Parameters
    ----------
    norms : mapping of str to float
        L2 norm of each site's update in this round.
    past : mapping of str to iterable of float
        Norms of each site's accepted updates in earlier rounds.
    limit : float or None
        Longer than this many times the median of the round, or of the site's past, is unusual;
        None when nothing is.
    """
    if limit is None:
        return set()
    unusual = set()
    for site, length in norms.items():
        for others in (list(norms.values()), list(past.get(site, ()))):
            if len(others) >= _FEWEST_NORMS and length > limit * median(others) > 0:
                unusual.add(site)
    return unusual


def code_of_error(reply: Message) -> str:
    """Return the code of an error reply; anything that is not one of ours reads as a failure."""
    if reply.error.code in _GONE:
        return ReplyCode.NO_ANSWER.value
    reason = reply.error.reason
    return str(reason) if reason in set(ReplyCode) else ReplyCode.FAILED.value
