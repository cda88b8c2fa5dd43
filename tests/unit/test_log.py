"""The worker's log: one line an event, whatever it holds, and nobody waits for whoever reads it."""

import os
import re
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gearwsgi import log


class Reader:
    """The other end of the log."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        os.set_blocking(descriptor, False)

    def read(self) -> list[str]:
        """The lines that are there, without their times."""
        data = b""
        while True:
            try:
                part = os.read(self.descriptor, 1 << 20)
            except BlockingIOError:
                break
            data += part
        return [line.split(" ", 3)[-1] for line in data.decode().split("\n")]


@pytest.fixture
def reader() -> Iterator[Reader]:
    read, write = os.pipe()
    log.redirect(write)
    yield Reader(read)
    log.redirect(2)
    os.close(read)
    os.close(write)


def test_a_line_begins_with_its_time_to_the_millisecond_and_the_zone(reader: Reader) -> None:
    log.write("H:x:1", "done")
    line = os.read(reader.descriptor, 1000).decode()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} [-+]\d{4} H:x:1 done\n", line)


def test_lines_that_nobody_reads_are_dropped_and_counted_once_there_is_room(reader: Reader) -> None:
    for number in range(3000):
        log.note(f"line {number} " + "x" * 60)
    kept = len(reader.read()) - 1
    assert 0 < kept < 3000
    log.note("the reader is back")
    told, last, end = reader.read()
    assert told == f"worker {3000 - kept} lines were dropped: nobody read this log, or it was full"
    assert (last, end) == ("worker the reader is back", "")


def test_a_long_line_that_is_cut_by_a_full_pipe_leaves_the_next_one_whole(reader: Reader) -> None:
    log.note("x" * 200_000)
    assert set(reader.read()[0]) > {"x"}
    log.note("whole")
    assert reader.read()[-2:] == ["worker whole", ""]


def test_other_writers_to_the_same_pipe_still_wait_for_its_reader(reader: Reader) -> None:
    log.note("first")
    assert os.get_blocking(log.LogStream().fileno())


def test_a_million_characters_without_a_newline_are_logged_in_pieces_as_they_come(reader: Reader) -> None:
    log.redirect(os.open(os.devnull, os.O_WRONLY))
    stream = log.LogStream()
    for _ in range(1000):
        stream.write("y" * 1000)
    assert sum(map(len, stream._partial)) <= log.MAX_LINE


def test_what_was_printed_in_parts_is_one_line(reader: Reader) -> None:
    stream = log.LogStream()
    stream.write("a")
    stream.write("b\nc")
    stream.write("")
    stream.end_line()
    stream.end_line()
    assert reader.read() == ["app | ab", "app | c", ""]


@pytest.mark.parametrize(
    ("text", "shown"),
    [("café", "café"), ("a\x1bé\u2028b", r"a\x1bé\u2028b"), ("\x1b\n", r"\x1b\n"), ("\ud800", r"\ud800")],
)
def test_what_is_not_printable_is_shown_as_an_escape(text: str, shown: str) -> None:
    assert log.clean(text) == shown


@given(st.text(), st.text())
def test_an_event_is_one_line_of_printable_text_whatever_it_holds(handle: str, event: str) -> None:
    read, write = os.pipe()
    try:
        log.redirect(write)
        log.write(handle, event)
    finally:
        log.redirect(2)
        os.close(write)
    with open(read, "rb") as pipe:
        (line,) = pipe.read().decode().split("\n")[:-1]
    assert line.isprintable()


def test_a_log_that_cant_be_written_costs_the_line_and_not_the_process() -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        log.redirect(write)
        log.note("nobody reads this")
    finally:
        log.redirect(2)
        os.close(write)
