"""The record of everything that leaves a site: one JSON line for each outgoing message."""

import contextlib
import datetime
import os
from pathlib import Path
from typing import BinaryIO

from flwr.app import ArrayRecord, Message
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from pydantic import BaseModel, ConfigDict, ValidationError

from napari_fedsam.federation.packed_parameters import PackingError, unpack_parameters
from napari_fedsam.files import atomic_path

_RESERVED_BYTES = 64 * 1024


class SentArray(BaseModel):
    """Name, shape and dtype of one array in a message."""

    model_config = ConfigDict(frozen=True)

    name: str
    shape: tuple[int, ...]
    dtype: str


class AuditLine(BaseModel):
    """One outgoing message.

    Attributes
    ----------
    time : str
        When the message was handed to Flower, UTC, ISO 8601.
    round : int
        Round of the message that it answers, 0 when that is unknown.
    purpose : str
        `train`, `evaluate` or another kind of message that was answered.
    arrays : tuple of SentArray
        The shared parameters in the message.
    numbers : dict
        Every aggregate number in the message by name.
    texts : dict
        Every other value in the message by name (the recipe hash).
    error : str
        Code of an error reply, "" for a reply with content.
    bytes : int
        Size of the message as Flower transmits it (all objects, before TLS).
    sha256 : str
        Flower's identifier of the message: the SHA-256 over its body and the identifiers of all
        its parts, so it changes with any bit of the payload.
    """

    model_config = ConfigDict(frozen=True)

    time: str
    round: int
    purpose: str
    arrays: tuple[SentArray, ...] = ()
    numbers: dict[str, float] = {}
    texts: dict[str, str] = {}
    error: str = ""
    bytes: int
    sha256: str


def describe_message(message: Message, round_number: int) -> AuditLine:
    """Describe an outgoing message completely enough to account for each of its bytes."""
    arrays: tuple[SentArray, ...] = ()
    numbers: dict[str, float] = {}
    texts: dict[str, str] = {}
    if message.has_content():
        records = message.content.array_records.values()
        arrays = tuple(array for record in records for array in _arrays_in(record))
        for metrics in message.content.metric_records.values():
            numbers.update({name: float(value) for name, value in metrics.items()})
        for config in message.content.config_records.values():
            texts.update({name: str(value) for name, value in config.items()})
    objects = get_all_nested_objects(message)
    return AuditLine(
        time=datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
        round=round_number,
        purpose=message.metadata.message_type,
        arrays=arrays,
        numbers=numbers,
        texts=texts,
        error=str(message.error.reason) if message.has_error() else "",
        bytes=sum(len(part.deflate()) for part in objects.values()),
        sha256=message.object_id,
    )


def append_audit(path: Path, line: AuditLine) -> None:
    """Append one line durably; it is on disk before the message can leave."""
    reserve = path.with_suffix(".reserve")
    try:
        _append(path, line)
    except OSError:
        if not reserve.exists():
            raise
        # What cannot be recorded may not leave, and a round would wait in vain for the refusal of
        # a site whose disk is full.
        reserve.unlink()
        _append(path, line)
        return
    _keep_room(reserve)


def read_audit(path: Path) -> list[AuditLine]:
    """Read the log, oldest message first.

    A line torn by a crash is left out: its message cannot have left, for a line is complete on
    disk before its message is handed to Flower.
    """
    if not path.exists():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        with contextlib.suppress(ValidationError):
            lines.append(AuditLine.model_validate_json(text))
    return lines


def bytes_sent(path: Path) -> int:
    """Return the bytes of all messages that left this site."""
    return sum(line.bytes for line in read_audit(path))


def _arrays_in(record: ArrayRecord) -> list[SentArray]:
    try:
        parameters = unpack_parameters(record)
    except PackingError:
        # Whatever else it may be has left as well.
        return [
            SentArray(name=name, shape=array.shape, dtype=array.dtype)
            for name, array in record.items()
        ]
    return [
        SentArray(
            name=name, shape=tuple(tensor.shape), dtype=str(tensor.dtype).removeprefix("torch.")
        )
        for name, tensor in sorted(parameters.items())
    ]


def _append(path: Path, line: AuditLine) -> None:
    text = line.model_dump_json() + "\n"
    with path.open("ab+") as log:
        if _ends_torn(log):
            log.write(b"\n")
        log.write(text.encode("utf-8"))
        log.flush()
        os.fsync(log.fileno())


def _keep_room(reserve: Path) -> None:
    """Keep room for some hundred lines, to be given back when the disk is full."""
    if not reserve.exists():
        with contextlib.suppress(OSError), atomic_path(reserve) as temporary:
            temporary.write_bytes(bytes(_RESERVED_BYTES))


def _ends_torn(log: BinaryIO) -> bool:
    if log.seek(0, os.SEEK_END) == 0:
        return False
    log.seek(-1, os.SEEK_END)
    return log.read(1) != b"\n"
