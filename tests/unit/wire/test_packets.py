"""Packets, from bytes of any kind."""

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gearwsgi.errors import ProtocolError
from gearwsgi.wire import packets
from gearwsgi.wire.packets import PacketReader
from gearwsgi.worker.channel import FrameReader


def packet(kind: int, *parameters: bytes) -> bytes:
    body = b"\0".join(parameters)
    return struct.pack("!4sII", b"\0RES", kind, len(body)) + body


def feed(reader: Any, *parts: bytes) -> list[Any]:
    return [each for part in parts for each in reader.feed(part)]


@given(st.lists(st.binary(max_size=30), min_size=1, max_size=5), st.integers(1, 40))
def test_packets_are_the_same_wherever_the_bytes_are_cut(payloads: list[bytes], size: int) -> None:
    data = b"".join(packet(packets.JOB_ASSIGN_UNIQ, b"H:1", b"job", b"u", payload) for payload in payloads)
    parts = [data[place : place + size] for place in range(0, len(data), size)]
    found = feed(PacketReader(), *parts)
    assert [parameters[3] for _, parameters in found] == payloads


@given(st.binary(max_size=64))
def test_any_bytes_are_packets_or_an_error_of_ours(data: bytes) -> None:
    for reader in (PacketReader(), FrameReader()):
        try:
            feed(reader, data, b"\0RES" + data)
        except ProtocolError:
            continue


def test_only_packets_with_data_may_announce_much() -> None:
    for kind in (*range(1, 43), 9999):
        header = struct.pack("!4sII", b"\0RES", kind, packets.SMALL + 1)
        if kind in packets.LARGE:
            assert feed(PacketReader(), header) == []
        else:
            with pytest.raises(ProtocolError):
                feed(PacketReader(), header)
    with pytest.raises(ProtocolError):
        feed(PacketReader(max_job=1_000_000), struct.pack("!4sII", b"\0RES", packets.WORK_COMPLETE, 1_000_001))


@pytest.mark.parametrize(
    "data",
    [packet(packets.JOB_ASSIGN_UNIQ, b"H:1", b"job"), packet(packets.JOB_ASSIGN_UNIQ),
     packet(packets.WORK_STATUS, b"H"), packet(packets.STATUS_RES, b"H:1", b"1"),
     struct.pack("!4sII", b"\0REQ", 8, 0), b"HTTP/1.1 400 Bad Request\r\n",
     struct.pack("!4sII", b"\0RES", 8, packets.MAX_PACKET + 1), b"ERR unknown_command Unknown+server+command\r\n"],
)  # fmt: skip
def test_a_packet_without_its_parameters_is_an_error_of_ours(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        feed(PacketReader(), data)


@pytest.mark.parametrize("step", [1 << 20, 70_000, 4096])
def test_a_job_that_is_too_large_is_not_kept_and_what_follows_is_read(step: int) -> None:
    large = b"x" * 3_000_000
    job = packet(packets.JOB_ASSIGN_UNIQ, b"H:1", b"job", b"u", large)
    data = packet(packets.NOOP) + job + packet(packets.JOB_CREATED, b"H:2") + job + packet(packets.NO_JOB)
    reader = PacketReader(max_job=1_000_000)
    found = []
    for place in range(0, len(data), step):
        found += list(reader.feed(data[place : place + step]))
        assert len(reader._buffer) <= step + 70_000
    kinds = [packets.NOOP, packets.JOB_TOO_LARGE, packets.JOB_CREATED, packets.JOB_TOO_LARGE, packets.NO_JOB]
    assert [kind for kind, _ in found] == kinds
    handle, queue, unique, beginning, size = found[1][1]
    assert (handle, queue, unique, size) == (b"H:1", b"job", b"u", b"%d" % (len(job) - 12))
    assert large.startswith(beginning) and len(beginning) > 60_000


def test_a_job_of_four_gigabytes_is_announced_and_not_waited_for_in_memory() -> None:
    head = struct.pack("!4sII", b"\0RES", packets.JOB_ASSIGN_UNIQ, 0xFFFFFFFF) + b"H:1\0job\0u\0"
    reader = PacketReader(max_job=1_000_000)
    assert feed(reader, head, *[b"x" * 65536] * 100) == []
    assert len(reader._buffer) == 0
