import errno

import pytest
import torch
from flwr.app import Error, Message, MetricRecord, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects

from napari_fedsam.federation import audit
from napari_fedsam.federation.audit import (
    append_audit,
    bytes_sent,
    describe_message,
    read_audit,
)
from napari_fedsam.federation.in_process import InProcessGrid
from napari_fedsam.federation.messages import config_record
from napari_fedsam.federation.packed_parameters import pack_parameters


@pytest.fixture
def instruction():
    grid = InProcessGrid(lambda message, _context: message, {})
    return grid.create_message(RecordDict(), "train", 2, "1")


def reply_to(instruction, value=1.0):
    content = RecordDict(
        {
            "shared": pack_parameters({"lora.a": torch.full((2, 3), value)}),
            "metrics": MetricRecord({"num-examples": 4, "loss": 0.25, "seconds": 1.5}),
            "config": config_record("a" * 64, 1),
        }
    )
    return Message(content, reply_to=instruction)


def test_a_line_accounts_for_everything_in_the_message(tmp_path, instruction):
    reply = reply_to(instruction)
    log = tmp_path / "audit.jsonl"
    append_audit(log, describe_message(reply, 3))
    (line,) = read_audit(log)
    assert line.round == 3
    assert line.purpose == "train"
    assert [(a.name, a.shape, a.dtype) for a in line.arrays] == [("lora.a", (2, 3), "float32")]
    assert line.numbers == {"num-examples": 4, "loss": 0.25, "seconds": 1.5}
    assert line.texts == {"recipe-hash": "a" * 64, "server-round": "1"}
    assert line.error == ""
    assert line.sha256 == reply.object_id
    assert line.bytes == sum(len(x.deflate()) for x in get_all_nested_objects(reply).values())
    assert bytes_sent(log) == line.bytes


def test_the_checksum_changes_with_any_value(instruction):
    one, other = reply_to(instruction), reply_to(instruction, 1.0000001)
    other.metadata.created_at = one.metadata.created_at
    other.metadata.ttl = one.metadata.ttl
    assert describe_message(one, 1).sha256 != describe_message(other, 1).sha256


def test_error_replies_are_recorded_too(tmp_path, instruction):
    log = tmp_path / "audit.jsonl"
    append_audit(log, describe_message(Message(Error(100, "failed"), reply_to=instruction), 1))
    (line,) = read_audit(log)
    assert (line.error, line.arrays, line.numbers) == ("failed", (), {})
    assert line.bytes > 0


def test_the_log_only_grows_and_survives_a_torn_line(tmp_path, instruction):
    log = tmp_path / "audit.jsonl"
    append_audit(log, describe_message(reply_to(instruction), 1))
    first = log.read_bytes()
    log.write_bytes(first + b'{"time":"2026-0')
    append_audit(log, describe_message(reply_to(instruction), 2))
    assert log.read_bytes().startswith(first)
    assert [line.round for line in read_audit(log)] == [1, 2]


def test_no_log_is_an_empty_log(tmp_path):
    assert read_audit(tmp_path / "audit.jsonl") == []
    assert bytes_sent(tmp_path / "audit.jsonl") == 0


@pytest.mark.faults
def test_a_refusal_is_recorded_even_when_the_disk_is_full(tmp_path, instruction, monkeypatch):
    log = tmp_path / "audit.jsonl"
    line = describe_message(Message(Error(100, "failed"), reply_to=instruction), 1)
    append_audit(log, line)
    (reserve,) = tmp_path.glob("*.reserve")
    assert reserve.stat().st_size > 100 * log.stat().st_size
    write = audit._append

    def append(path, line):
        if reserve.exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, line)

    monkeypatch.setattr(audit, "_append", append)
    append_audit(log, line)
    assert not reserve.exists()
    assert len(read_audit(log)) == 2
    # As soon as there is room, it is reserved again.
    append_audit(log, line)
    assert reserve.exists()
