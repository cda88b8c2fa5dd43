"""The pipe's framing between the supervisor and a worker process, whatever an application writes there."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gearwsgi.errors import ProtocolError
from gearwsgi.policy import Outcome
from gearwsgi.worker import channel
from gearwsgi.worker.channel import DONE, FOREIGN, FrameReader, frame
from tests.unit.wire.test_packets import feed

frames = st.builds(
    lambda kind, sequence, payload: (kind, sequence, payload),
    st.integers(channel.JOB, channel.RETIRING),
    st.integers(0, 255),
    st.binary(max_size=40),
)
binary = st.binary(min_size=1, max_size=40).filter(lambda data: b"\xfe" not in data)
rubbish = binary | st.text(min_size=1).map(str.encode)


@given(st.lists(frames | rubbish, max_size=20), st.data())
def test_every_frame_is_read_and_rubbish_is_told_once_wherever_it_is_cut(parts: list, data: st.DataObject) -> None:
    parts.append((channel.DONE, 1, b"last"))
    stream = b"".join(part if isinstance(part, bytes) else channel.frame(*part) for part in parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=5)))
    reader = channel.FrameReader()
    found = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += reader.feed(stream[start:end])
    expected: list = []
    for part in parts:
        told = (channel.FOREIGN, 0, b"") if isinstance(part, bytes) else part
        if told[0] != channel.FOREIGN or expected[-1:] != [told]:
            expected.append(told)
    assert found == expected


@given(
    st.builds(
        Outcome,
        kind=st.sampled_from(["response", "exception", "timeout", "lost", "refused"]),
        retry_in=st.none() | st.floats(allow_nan=False) | st.integers() | st.just(10**400),
    )
)
def test_an_outcome_is_read_as_it_was_written(outcome: Outcome) -> None:
    [(kind, sequence, payload)] = channel.FrameReader().feed(channel.failed_frame(7, outcome))
    assert (kind, sequence) == (channel.FAILED, 7)
    assert channel.read_outcome(payload) == outcome


@pytest.mark.parametrize(
    ("name", "value"),
    [("kind", "fine"), ("kind", "continued"), ("kind", []), ("status", True), ("status", "500"), ("never", 1),
     ("retry_in", "1"), ("retry_in", float("nan")), ("response", 1), ("response", "\u20ac"), ("reason", None),
     ("more", 1)],
)  # fmt: skip
def test_an_outcome_with_a_field_of_a_wrong_type_is_none(name: str, value: object) -> None:
    [(_, _, payload)] = channel.FrameReader().feed(channel.failed_frame(1, Outcome("lost")))
    with pytest.raises(ProtocolError):
        channel.read_outcome(json.dumps({**json.loads(payload), name: value}).encode())


@pytest.mark.parametrize(
    ("kind", "size"),
    [(channel.PROGRESS, 17), (channel.PROGRESS, 1 << 20), (channel.READY, 1), (channel.JOB, 8), (channel.FOREIGN, 0),
     (channel.DONE, channel.MAX_DATA + 1), (channel.TRANSLATED, 1001), (channel.FAILED, (1 << 20) + 1)],
)  # fmt: skip
def test_a_frame_that_no_worker_would_send_is_not_waited_for(kind: int, size: int) -> None:
    reader = channel.from_worker(1000, lambda: False)
    head = channel.frame(kind, 1, bytes(size))[: 10 + min(size, 100)]
    assert list(reader.feed(head)) == [(channel.FOREIGN, 0, b"")]
    assert list(reader.feed(channel.frame(channel.SKIPPED, 2))) == [(channel.SKIPPED, 2, b"")]


def test_only_who_waits_for_a_whole_response_gets_a_long_one() -> None:
    long = channel.frame(channel.DONE, 1, bytes(channel.MAX_DATA + 1))
    assert [kind for kind, _, _ in channel.from_worker(2 * channel.MAX_DATA, lambda: True).feed(long)] == [channel.DONE]
    assert [kind for kind, _, _ in channel.from_worker(1000, lambda: True).feed(long)] == [channel.FOREIGN]


def test_a_failure_that_is_said_at_length_is_cut_to_what_is_read() -> None:
    outcome = Outcome("response", "\U0001f600" * 100_000, 500, location="\x00" * 100_000, response=bytes(1 << 21))
    outcome.caught = outcome.retry_after = outcome.reason
    [(kind, _, payload)] = channel.from_worker(1000, lambda: False).feed(channel.failed_frame(1, outcome))
    assert kind == channel.FAILED
    assert channel.read_outcome(payload).status == 500


def test_a_frame_of_a_length_that_no_frame_has_is_rubbish_and_not_waited_for() -> None:
    endless = frame(DONE, 1)[:-4] + b"\xff\xff\xff\xff"
    assert feed(FrameReader(), endless + frame(DONE, 2)) == [(FOREIGN, 0, b""), (DONE, 2, b"")]
