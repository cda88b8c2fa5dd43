"""The pipe's framing between the supervisor and a worker process, whatever an application writes there."""

from hypothesis import given
from hypothesis import strategies as st

from gearwsgi.worker import channel

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
        told = (channel.RUBBISH, 0, b"") if isinstance(part, bytes) else part
        if told[0] != channel.RUBBISH or expected[-1:] != [told]:
            expected.append(told)
    assert found == expected
