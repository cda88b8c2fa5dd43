"""Random bytes, led by coverage, for everything that reads bytes from elsewhere: `python -m tests.fuzz [SECONDS]`.

Needs atheris (`pip install atheris`; wheels for CPython on Linux). Each input goes to all readers; anything but the
error that a reader may raise, and any message that is not read again as it was written, ends the run with the input
in a file. The last line says how many runs there were.
"""

import contextlib
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def watched() -> Any:
    """The imports of what is tested, with coverage where this is the program."""
    if __name__ != "__main__":
        return contextlib.nullcontext()
    try:
        import atheris
    except ImportError:
        sys.exit("tests.fuzz: atheris is not installed, nothing was tested; `pip install atheris` has wheels for Linux")
    return atheris.instrument_imports(include=["gearwsgi"])


with watched():
    from gearwsgi import policy, settings
    from gearwsgi.errors import BadMessage, InvalidTask, ProtocolError, SpoolError
    from gearwsgi.message import model, plain, reading, redact, signature, targets
    from gearwsgi.state.spool import Letter
    from gearwsgi.wire import connection, payload
    from gearwsgi.worker import channel, child

CORPUS = Path(__file__).parent / "corpus"
KEY = b"0123456789abcdef"
TASKS = {"testTask": targets.Service("Test.task"), "get": targets.Service("GET /x?a=1")}
OPEN = settings.read_settings({"servers": "127.0.0.1:1", "tasks": {"testTask": "Test.task"}}, {})
CLOSED = settings.read_settings({"servers": "127.0.0.1:1", "secret_keys": [KEY], "accept_unsigned": ["legacy"]}, {})
NOW = 1_800_000_000.0
MAX_BODY = 4096


def outcome(data: bytes) -> Any:
    try:
        return reading.read(data, max_body=MAX_BODY)
    except BadMessage as error:
        return str(error)


def read_usual(data: bytes) -> None:
    in_one_go, usual = outcome(data), reading._read_usual
    reading._read_usual = lambda text, body: None
    try:
        assert outcome(data) == in_one_go, "line by line it is another message"
    finally:
        reading._read_usual = usual


def read_message(data: bytes) -> None:
    try:
        found = reading.read(data, max_body=MAX_BODY)
    except BadMessage:
        return
    written = found.to_bytes()
    again = reading.read(written, max_body=MAX_BODY)
    assert again.to_bytes() == written, "not the same the second time"
    assert (again.method, again.path, again.body, again.id) == (found.method, found.path, found.body, found.id)
    model.path_info(found.path)
    try:
        found.data()
    except ValueError as error:
        assert "Max number of fields" in str(error)
    OPEN.retry_limits(found)
    assert OPEN.time_limit(found) > 0
    assert len(payload.make_unique(found.id, found.attempt, "~123456").encode()) <= 63


def read_plain(data: bytes) -> None:
    try:
        found = plain.read_plain(data, TASKS, None, id="1" * 32, max_body=MAX_BODY)
    except BadMessage as error:
        str(error).encode()
        return
    assert reading.read(found.to_bytes(), max_body=8 * MAX_BODY).body == found.body


def open_payload(data: bytes) -> None:
    for wanted, queue in ((OPEN, b"job"), (CLOSED, b"job"), (CLOSED, b"legacy")):
        job = payload.Grabbed(b"H:1", queue, data[:20], data)
        try:
            found = payload._open(job, wanted, NOW, False)  # without the net below it
        except BadMessage:
            continue
        assert found.id
        assert wanted is not CLOSED or queue == b"legacy" or KEY in data, "ran unsigned"
    signed = signature.sign(data, "job", KEY, NOW)
    assert signature.renew(data, "job", [KEY], NOW) == data
    if 0 <= data.find(b"\r\n\r\n") < model.MAX_HEAD and not signature.is_signed(data):
        signature.verify(signed, "job", [KEY], NOW)


def read_letter(data: bytes) -> None:
    try:
        found = Letter.from_bytes(data)
    except SpoolError:
        return
    again = Letter.from_bytes(found.to_bytes("test"))
    assert again.message == found.message


def read_frames(data: bytes) -> None:
    def feed(reader: Any, *parts: bytes) -> list[Any]:
        found: list[Any] = []
        try:
            for part in parts:
                found.extend(reader.feed(part))
        except ProtocolError:
            found.append("error")
        return found

    middle = len(data) // 2
    for make in (channel.FrameReader, connection.PacketReader, lambda: connection.PacketReader(70_000)):
        whole = feed(make(), data)
        assert feed(make(), data[:middle], data[middle:]) == whole, "it matters where the bytes are cut"
    for kind, _, content in (frame for frame in feed(channel.FrameReader(), data) if frame != "error"):
        read_frame(kind, content)


def read_frame(kind: int, content: bytes) -> None:
    try:
        if kind == channel.PROGRESS:
            channel.read_progress(content)
        elif kind == channel.FAILED:
            outcome = child.read_outcome(content)
            policy.decide(outcome, 1, policy.Limits(5, 1.0, 2.0), NOW, target="x")
    except (ProtocolError, ValueError, TypeError, KeyError):
        return


def read_text(data: bytes) -> None:
    text = data[:200].decode("utf-8", "replace")
    seconds = policy.retry_after(text, NOW)
    assert seconds is None or 0 <= seconds <= policy.MAX_RETRY_AFTER
    redact.redact_payload(data)
    try:
        target = targets.resolve(text, TASKS, None)
    except InvalidTask:
        return
    assert target.path.isascii() and " " not in target.path


READERS = (read_usual, read_message, read_plain, open_payload, read_letter, read_frames, read_text)


def run_all(data: bytes) -> None:
    """One input, to all of them."""
    began = time.perf_counter()
    for reader in READERS:
        reader(data)
    assert time.perf_counter() - began < 20, "an input of some kilobytes took 20 s"


def main() -> None:
    """Run for as many seconds as the command line says, or ten minutes."""
    import atheris

    seconds = sys.argv[1] if len(sys.argv) > 1 else "600"
    if not seconds.isdigit():
        sys.exit(f"tests.fuzz: {seconds!r} is no number of seconds")
    with tempfile.TemporaryDirectory(prefix="gearwsgi-fuzz-") as found:
        # libFuzzer writes into the first folder and only reads the second.
        options = [
            f"-max_total_time={seconds}",
            "-max_len=8192",
            f"-dict={CORPUS / 'words.dict'}",
            "-print_final_stats=1",
        ]
        atheris.Setup([sys.argv[0], found, str(CORPUS / "inputs"), *options], run_all)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
