"""What may travel: shared parameters by allow-list, aggregate numbers, and the recipe's hash."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from flwr.app import ConfigRecord, MetricRecord, RecordDict
from torch import Tensor

from napari_fedsam.federation.errors import RefusedMessageError, ReplyCode
from napari_fedsam.federation.packed_parameters import (
    PackingError,
    digest_of,
    unpack_parameters,
)
from napari_fedsam.training.evaluation import JUDGED_PROMPTS

SHARED_KEY = "shared"
CONFIG_KEY = "config"
METRICS_KEY = "metrics"
RECIPE_HASH_KEY = "recipe-hash"
ROUND_KEY = "server-round"
LEFT_OUT_KEY = "left-out"
DIGEST_KEY = "shared-digest"
EXAMPLES_KEY = "num-examples"

TRAIN_METRICS = frozenset({EXAMPLES_KEY, "loss", "seconds"})
EVALUATE_METRICS = frozenset(
    {EXAMPLES_KEY, "activated", *(f"dice-{kind}" for kind in JUDGED_PROMPTS)}
)

_INSTRUCTION_KEYS = frozenset({RECIPE_HASH_KEY, ROUND_KEY, LEFT_OUT_KEY, DIGEST_KEY})

SharedSpec = Mapping[str, tuple[tuple[int, ...], Any]]


def config_record(
    recipe_hash: str, round_number: int, *, left_out: str = "", digest: str = ""
) -> ConfigRecord:
    """Pack the recipe's hash and the number of the round.

    Parameters
    ----------
    recipe_hash : str
    round_number : int
        Of the instruction, and of the answer to it.
    left_out : str
        In an instruction: why the site's newest update was left out, as a code.
    digest : str
        In an instruction: of the shared parameters, in their place, where the site has them.
    """
    record = ConfigRecord({RECIPE_HASH_KEY: recipe_hash, ROUND_KEY: round_number})
    if left_out:
        record[LEFT_OUT_KEY] = left_out
    if digest:
        record[DIGEST_KEY] = digest
    return record


def check_recipe(content: RecordDict, recipe_hash: str) -> None:
    """Refuse a message that was made under another recipe.

    Raises
    ------
    RefusedMessageError
        With code `RECIPE_MISMATCH` when the hash is missing or differs.
    """
    config = content.config_records.get(CONFIG_KEY, ConfigRecord())
    received = config.get(RECIPE_HASH_KEY)
    if received != recipe_hash:
        raise RefusedMessageError(
            ReplyCode.RECIPE_MISMATCH,
            "The coordinator and this site work under different recipes; ask the "
            "coordinator for a new invitation and import it.",
        )


def check_instruction(content: RecordDict) -> None:
    """Refuse an instruction that holds, or asks for, more than a round needs.

    The shared parameters in it are checked by `read_shared`.

    Raises
    ------
    RefusedMessageError
        With code `REFUSED_REQUEST`.
    """
    records = content.config_records
    unknown = set(records) - {CONFIG_KEY} | set(content.metric_records)
    unknown |= set(records.get(CONFIG_KEY, ConfigRecord())) - _INSTRUCTION_KEYS
    if unknown:
        raise unknown_request(f"'{sorted(unknown)[0]}'")


def unknown_request(what: str) -> RefusedMessageError:
    """Return the refusal of something that the recipe does not hold."""
    return RefusedMessageError(
        ReplyCode.REFUSED_REQUEST,
        f"The coordinator asked for {what}, which is not in the recipe; nothing was done and "
        "nothing was sent. Ask the coordinator why.",
    )


def round_of(content: RecordDict) -> int:
    """Return the number of the round that a message belongs to (0 when it has none)."""
    value = content.config_records.get(CONFIG_KEY, ConfigRecord()).get(ROUND_KEY, 0)
    return value if isinstance(value, int) else 0


def left_out_of(content: RecordDict) -> ReplyCode | None:
    """Return why the coordinator left out this site's newest update, None when it did not."""
    code = content.config_records.get(CONFIG_KEY, ConfigRecord()).get(LEFT_OUT_KEY)
    return ReplyCode(code) if code in set(ReplyCode) else None


def shared_or_own(
    content: RecordDict, own: Mapping[str, Tensor], spec: SharedSpec
) -> dict[str, Tensor]:
    """Return the shared parameters of an instruction, or this site's own where they are the same.

    Parameters
    ----------
    content : RecordDict
    own : mapping of str to Tensor
        The shared parameters that this site has.
    spec : mapping of str to (shape, dtype)

    Raises
    ------
    RefusedMessageError
        With code `PARAMETERS_MISSING` when the instruction means others, which it does not hold;
        or see `read_shared`.
    """
    digest = content.config_records.get(CONFIG_KEY, ConfigRecord()).get(DIGEST_KEY)
    if digest is None or content.array_records:
        return read_shared(content, spec)
    if digest != digest_of(own):
        raise RefusedMessageError(
            ReplyCode.PARAMETERS_MISSING,
            "This site has other parameters than the coordinator thinks; it asked for them.",
        )
    return dict(own)


def read_shared(content: RecordDict, spec: SharedSpec) -> dict[str, Tensor]:
    """Unpack shared parameters after checking every array against the recipe's allow-list.

    Parameters
    ----------
    content : RecordDict
        Content of a message from the other end.
    spec : mapping of str to (shape, dtype)
        The shared parameters of the recipe: exactly these names, shapes and dtypes may travel.

    Returns
    -------
    dict of str to Tensor
        The parameters, all finite.

    Raises
    ------
    RefusedMessageError
        With code `REFUSED_ARRAYS`, naming the first array that does not pass.
    """
    records = content.array_records
    if set(records) != {SHARED_KEY}:
        raise _refused("the message does not hold exactly one set of shared parameters")
    try:
        arrays = unpack_parameters(records[SHARED_KEY])
    except PackingError as error:
        raise _refused("its parameters are not packed as agreed") from error
    if unexpected := sorted(set(arrays) - set(spec)):
        raise _refused(f"'{unexpected[0]}' is not a shared parameter of the recipe")
    if missing := sorted(set(spec) - set(arrays)):
        raise _refused(f"the shared parameter '{missing[0]}' is missing")
    for name, (shape, dtype) in spec.items():
        _check_tensor(name, arrays[name], shape, dtype)
    return {name: arrays[name] for name in spec}


def read_metrics(content: RecordDict, allowed: Iterable[str]) -> dict[str, float]:
    """Return the aggregate numbers of a reply after checking names and finiteness.

    Raises
    ------
    RefusedMessageError
        With code `REFUSED_ARRAYS` when a number is missing, unknown, negative or not finite.
    """
    names = set(allowed)
    metrics = content.metric_records.get(METRICS_KEY, MetricRecord())
    if set(content.metric_records) != {METRICS_KEY} or set(metrics) != names:
        raise _refused("the numbers in the message are not those of the recipe")
    numbers = {}
    for name in sorted(names):
        value = metrics[name]
        if isinstance(value, list) or not math.isfinite(value) or value < 0:
            raise _refused(f"the number '{name}' is not finite or is negative")
        numbers[name] = float(value)
    return numbers


def _check_tensor(name: str, tensor: Tensor, shape: tuple[int, ...], dtype: Any) -> None:
    if tuple(tensor.shape) != tuple(shape) or tensor.dtype != _dtype(dtype):
        raise _refused(f"'{name}' has another shape or type than the recipe says")
    if not torch.isfinite(tensor).all():
        raise _refused(f"'{name}' holds values that are not finite")


def _dtype(dtype: Any) -> torch.dtype:
    kind: torch.dtype = getattr(torch, str(dtype).removeprefix("torch."))
    return kind


def _refused(reason: str) -> RefusedMessageError:
    return RefusedMessageError(
        ReplyCode.REFUSED_ARRAYS, f"A message was refused and nothing of it was used: {reason}."
    )
