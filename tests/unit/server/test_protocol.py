"""The packet reader: however the bytes are cut, and whatever they are."""

import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gearwsgi.server.protocol import (
    LINE_LIMIT,
    BadBytes,
    Line,
    Packet,
    Reader,
    Request,
    TooLarge,
    answer,
    error,
    number,
)
from gearwsgi.wire.packets import LARGE, PARAMETERS, SMALL
from tests.integration.server.wire import ECHO_REQ, HEADER, SUBMIT_JOB_BG, packet

LIMIT = 1000

words = st.binary(max_size=30).map(lambda data: data.replace(b"\0", b""))
lines = words.map(lambda word: Line(word.replace(b"\n", b"").replace(b"\r", b"")))


@st.composite
def packets(draw: st.DrawFn) -> Packet:
    kind = draw(st.sampled_from(sorted(PARAMETERS)))
    count = PARAMETERS[kind]
    args = [draw(words) for _ in range(count - 1)] + [draw(st.binary(max_size=60))] if count else []
    return Packet(kind, tuple(args), draw(st.booleans()))


def written(request: Request) -> bytes:
    if isinstance(request, Packet):
        return packet(request.type, *request.args, magic=b"\0REQ" if request.magic else b"\0RES")
    if isinstance(request, Line):
        return request.text + b"\n"
    return HEADER.pack(b"\0REQ", 18, request.size) + bytes(request.size)


def read(reader: Reader) -> list[Request]:
    found: list[Request] = []
    while (request := reader.next()) is not None:
        found.append(request)
    return found


def cut(data: bytes, places: list[int]) -> list[bytes]:
    marks = [0, *sorted({place % (len(data) + 1) for place in places}), len(data)]
    return [data[a:b] for a, b in pairwise(marks)]


@given(
    st.lists(
        packets() | lines | st.integers(LIMIT + 1, LIMIT + 50).map(lambda size: TooLarge(size, LIMIT)), max_size=12
    ),
    st.lists(st.integers(0, 10_000), max_size=20),
)
def test_requests_come_out_as_they_went_in_however_the_bytes_are_cut(
    requests: list[Request], places: list[int]
) -> None:
    reader, found = Reader(LIMIT), []
    for part in cut(b"".join(map(written, requests)), places):
        reader.feed(part)
        found += read(reader)
    assert found == requests
    assert reader.pending == 0


@given(st.lists(st.binary(max_size=80) | packets().map(written) | st.just(b"\0REQ"), max_size=20))
def test_no_bytes_make_the_reader_fail_or_hoard(parts: list[bytes]) -> None:
    reader = Reader(LIMIT)
    for part in parts:
        reader.feed(part)
        try:
            read(reader)
        except BadBytes:
            return
        assert reader.pending <= LIMIT + HEADER.size + LINE_LIMIT


def test_an_announced_length_allocates_nothing() -> None:
    readers = [Reader(1 << 31) for _ in range(50)]
    tracemalloc.start()
    for reader in readers:
        reader.feed(HEADER.pack(b"\0REQ", SUBMIT_JOB_BG, (1 << 31) - 1))
        assert reader.next() is None
    assert tracemalloc.get_traced_memory()[1] < 100_000
    tracemalloc.stop()


def test_a_packet_above_the_limit_is_told_at_once_and_its_bytes_are_thrown_away() -> None:
    reader = Reader(LIMIT)
    reader.feed(HEADER.pack(b"\0REQ", SUBMIT_JOB_BG, 100 * LIMIT))
    assert reader.next() == TooLarge(100 * LIMIT, LIMIT)
    for _ in range(100):
        reader.feed(bytes(LIMIT))
        assert reader.next() is None
        assert reader.pending == 0
    reader.feed(packet(ECHO_REQ, b"x"))
    assert reader.next() == Packet(ECHO_REQ, (b"x",))


def test_a_line_without_an_end_is_given_up() -> None:
    reader = Reader(LIMIT)
    with pytest.raises(BadBytes):
        for _ in range(LINE_LIMIT):
            reader.feed(b"xy")
            assert reader.next() is None
    assert reader.pending <= LINE_LIMIT + 2


@pytest.mark.parametrize("data", [b"\0XYZ", b"\0x", b"\0REX", b"\0RESX"[:4][:3] + b"\0" * 9, b"\0\0"])
def test_a_nul_that_begins_no_packet_is_told_as_soon_as_it_is_seen(data: bytes) -> None:
    reader = Reader(LIMIT)
    reader.feed(data)
    with pytest.raises(BadBytes):
        reader.next()


def test_an_answer_is_written_as_the_protocol_says() -> None:
    assert answer(8, b"H:host:1") == b"\0RES\0\0\0\x08\0\0\0\x08H:host:1"
    assert error("QUEUE_ERROR", "full") == b"\0RES\0\0\0\x13\0\0\0\x10QUEUE_ERROR\0full"


def test_only_packets_with_data_may_be_large() -> None:
    reader = Reader(1_000_000)
    for kind in sorted(PARAMETERS):
        reader.feed(HEADER.pack(b"\0REQ", kind, SMALL + 1))
        found = reader.next()
        if kind in LARGE:
            assert found is None
            reader.feed(bytes(SMALL + 1))
            assert isinstance(reader.next(), Packet)
        else:
            assert found == TooLarge(SMALL + 1, SMALL)
            reader.feed(bytes(SMALL + 1))
            assert reader.pending == 0
    reader.feed(HEADER.pack(b"\0REQ", 9999, SMALL + 1))
    assert isinstance(reader.next(), TooLarge)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"12", 12),
        (b"12.5", 12),
        (b" \t\n\v\f\r12", 12),
        (b"+12x", 12),
        (b"-12", -12),
        (b"007\n", 7),
        (b"0x10", 0),
        (b"", 0),
        (b"x", 0),
        (b"++1", 0),
        (b"+ 1", 0),
        (b"\xa01", 0),
        (b"\xd9\xa3", 0),
        (b"9" * 100_000, 2**63 - 1),
        (b"-" + b"9" * 30, -(2**63)),
    ],
)
def test_a_number_is_read_as_far_as_it_is_one(text: bytes, value: int) -> None:
    assert number(text) == value
