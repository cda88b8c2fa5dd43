"""Dead letters: found, listed, grouped, kept in bounds, retried or discarded by the hundred, and sent with curl."""

import contextlib
import http.server
import json
import os
import pty
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from gearwsgi.cli.dead import dead
from gearwsgi.cli.outbox import outbox
from gearwsgi.errors import GearwsgiError, SpoolError
from gearwsgi.message.model import Message
from gearwsgi.policy import Outcome
from gearwsgi.settings import read_settings
from gearwsgi.state import retention
from gearwsgi.state.dead import DeadLetters
from gearwsgi.state.reproduce import write_curl
from gearwsgi.state.spool import Letter
from gearwsgi.wire.payload import Grabbed
from tests.hostile import HOSTILE, obeys_no_terminal
from tests.support import until

HOUR_AGO = time.time() - 3600


@pytest.fixture
def letters(tmp_path: Path) -> DeadLetters:
    return DeadLetters(read_settings({"state_dir": tmp_path}, {}))


def put(letters: DeadLetters, name: str, *, age: float = 0.0, message: bytes = b"", **fields: str) -> str:
    """Leave a letter that died so many seconds ago."""
    at = time.time() - age
    died = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(at))
    known = {"id": name, "service": "mail", "target": "POST /x", "queue": "job", "died": died, "attempts": "5"}
    known |= {"reason": "404 Not Found", "trusted": "yes"}
    message = message or Message("POST", id=name).to_bytes()
    letters.spool.put(Letter(message, {**known, **fields}, ["a note"]), name)
    os.utime(letters.spool.path(name), (at, at))
    return name


def run(letters: DeadLetters, *arguments: str, command: Any = dead) -> Result:
    """Run `gearwsgi dead` in this process, with a standard input that is no terminal."""
    env = {"GEARWSGI_STATE_DIR": str(letters.spool.folder.parent), "GEARMAN_SERVERS": "127.0.0.1:1"}
    return CliRunner().invoke(command, list(arguments), env=env)


# -- found -----------------------------------------------------------------------------------------------------------


def test_an_id_may_be_shortened_where_it_stays_the_only_one(letters: DeadLetters) -> None:
    put(letters, "aaaa1" + "0" * 27)
    put(letters, "aaaa2" + "0" * 27)
    put(letters, "b" * 32, id="aaaa3 of someone else")
    assert letters.find("aaaa1").name == "aaaa1" + "0" * 27
    assert letters.find("aaaa3").name == "b" * 32
    for wanted, why in (("aaaa", "3 dead letters begin"), ("aaa", "no dead letter"), ("c" * 32, "no dead letter")):
        with pytest.raises(SpoolError, match=why):
            letters.find(wanted)


def test_a_letter_that_was_set_apart_is_found_by_its_id(letters: DeadLetters) -> None:
    put(letters, "a" * 32)
    letters.set_apart(letters.find("a" * 32))
    assert letters.find("a" * 32).id == letters.find("aaaa").id == "a" * 32


# -- listed ----------------------------------------------------------------------------------------------------------


def test_letters_are_listed_newest_first_and_no_more_than_the_limit(letters: DeadLetters) -> None:
    for number in range(5):
        put(letters, f"{number}" * 32, age=10 * number)
    result = run(letters, "list", "--limit", "2")
    assert [line[0] for line in result.stdout.splitlines()] == ["0", "1"]
    assert "more than 2" in result.stderr
    listed = json.loads(run(letters, "list", "--json", "--limit", "0").stdout)
    assert [row["id"][0] for row in listed] == list("01234")
    assert json.loads(run(letters, "list", "--json", "--service", "nothing").stdout) == []


def test_letters_are_listed_by_service_and_time(letters: DeadLetters) -> None:
    put(letters, "1" * 32, age=30)
    put(letters, "2" * 32, age=30, service="other")
    put(letters, "3" * 32, age=7200)
    put(letters, "4" * 32, died="long ago")
    assert [entry.name[0] for entry in letters.entries(HOUR_AGO, "mail")] == ["1"]
    shown = run(letters, "list", "--since", "1h", "--service", "other").stdout
    assert shown.startswith("2" * 32) and len(shown.splitlines()) == 1


def test_letters_are_counted_by_service_and_reason(letters: DeadLetters) -> None:
    for number in range(3):
        put(letters, f"{number}" * 32)
    put(letters, "4" * 32, service="other", reason="500")
    groups = json.loads(run(letters, "list", "--group", "--json").stdout)
    assert groups == [
        {"service": "mail", "reason": "404 Not Found", "count": 3},
        {"service": "other", "reason": "500", "count": 1},
    ]
    assert "404 Not Found" in run(letters, "list", "--group").stdout


def test_a_message_of_any_size_is_not_read_for_a_list(letters: DeadLetters) -> None:
    put(letters, "1" * 32)
    with letters.spool.path("1" * 32).open("ab") as file:
        file.truncate(10 * 2**30)  # a hole: it takes no room
    (entry,) = letters.entries()
    assert entry.reason == "404 Not Found"


def test_of_a_large_message_the_beginning_is_shown(letters: DeadLetters) -> None:
    put(letters, "1" * 32, message=b"Cookie: hush\r\n" * 1_000_000)
    result = run(letters, "show", "1111")
    assert len(result.stdout) < 1_000_000 and "hush" not in result.stdout
    assert "bytes more" in result.stderr and "1" * 32 in result.stderr


def test_what_is_no_letter_is_named_in_the_log_and_hides_no_other(
    letters: DeadLetters, caplog: pytest.LogCaptureFixture
) -> None:
    put(letters, "1" * 32)
    (letters.spool.folder / "2.http").write_bytes(b"rubbish")
    (letters.spool.folder / "3.http").write_bytes(b"### gearwsgi dead letter\n# id: x\n")
    (letters.spool.folder / "4.http").symlink_to("/etc/passwd")
    assert [entry.name for entry in letters.entries()] == ["1" * 32]
    assert [letter.name for letter in letters.all()] == ["1" * 32]
    assert len(caplog.records) == 6


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize(
    "command",
    [("list",), ("list", "--group"), ("show", "1" * 32), ("curl", "1" * 32), ("discard", "1" * 32), ("show", "9999")],
    ids=" ".join,
)
def test_no_field_that_a_stranger_wrote_obeys_a_terminal(
    letters: DeadLetters, text: str, command: tuple[str, ...]
) -> None:
    fields = dict.fromkeys(("id", "service", "target", "queue", "handle", "attempts", "reason", "died"), text)
    put(letters, "1" * 32, message=text.encode("utf-8", "surrogateescape"), **fields)
    result = run(letters, *command)
    if isinstance(result.exception, GearwsgiError):
        return  # `main` prints it clean
    assert result.exit_code == 0, (result.output, result.exception)
    assert obeys_no_terminal(result.output.replace("\t", ""))


@pytest.mark.parametrize("text", HOSTILE)
def test_no_field_in_the_outbox_obeys_a_terminal(letters: DeadLetters, text: str) -> None:
    from gearwsgi.state.outbox import Outbox
    from gearwsgi.wire.payload import Submission

    box = Outbox(read_settings({"state_dir": letters.spool.folder.parent}, {}))
    box.put(Submission("job", "u", b"x", id=text))
    assert obeys_no_terminal(run(letters, "list", command=outbox).output)


def test_an_error_is_printed_without_what_a_terminal_obeys(letters: DeadLetters) -> None:
    done = command_line(letters, "show", "\x1b[2J")
    assert done.returncode == 3 and obeys_no_terminal(done.stderr)


def test_a_list_fits_a_terminal_of_80_columns(letters: DeadLetters) -> None:
    put(letters, "1" * 32, service="a.very.long.service" * 5, reason="a reason " * 50, id="i" * 300)
    put(letters, "2" * 32, service="漢字" * 30, reason="漢字" * 100)
    from rich.cells import cell_len

    with terminal() as (keyboard, screen):
        done = command_line(letters, "list", stdin=keyboard, stdout=screen, columns=80)
        shown = os.read(pty_of[screen], 65536).decode()
    assert done.returncode == 0
    assert len(shown.splitlines()) == 4
    assert all(cell_len(line) <= 80 for line in shown.splitlines()), shown
    assert "1" * 32 in shown and "2" * 32 in shown


# -- many at a time --------------------------------------------------------------------------------------------------

pty_of: dict[int, int] = {}


@contextlib.contextmanager
def terminal() -> Iterator[tuple[int, int]]:
    """A terminal: what to give a process as standard input and output; `pty_of` has its other end."""
    other, end = pty.openpty()
    pty_of[end] = other
    try:
        yield end, end
    finally:
        del pty_of[end]
        os.close(other)
        os.close(end)


def command_line(
    letters: DeadLetters,
    *arguments: str,
    stdin: int = subprocess.DEVNULL,
    stdout: int = subprocess.PIPE,
    columns: int = 0,
) -> subprocess.CompletedProcess[str]:
    """Run `gearwsgi dead` as a process."""
    given = {
        "GEARWSGI_STATE_DIR": str(letters.spool.folder.parent),
        "GEARMAN_SERVERS": "127.0.0.1:1",
        "COLUMNS": str(columns),
    }
    return subprocess.run(
        [sys.executable, "-m", "gearwsgi", "dead", *arguments],
        env={**os.environ, **given},
        stdin=stdin,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("verb", ["retry", "discard"])
@pytest.mark.parametrize("which", [("--all",), ("--service", "mail"), ("--since", "1h")], ids=" ".join)
def test_many_are_changed_only_where_someone_said_yes(letters: DeadLetters, verb: str, which: tuple[str, ...]) -> None:
    put(letters, "1" * 32)
    put(letters, "2" * 32)
    result = run(letters, verb, *which)
    assert result.exit_code == 2 and "--yes" in result.stderr and "2 dead letters" in result.stderr
    assert letters.spool.count() == 2
    assert run(letters, verb, *which, "--yes").exit_code == 0
    assert letters.spool.count() == 0


def test_a_letter_that_can_not_be_queued_again_holds_up_no_other(letters: DeadLetters) -> None:
    put(letters, "1" * 32, message=b"rubbish", age=10)
    put(letters, "2" * 32)
    result = run(letters, "retry", "--all", "--yes")
    assert isinstance(result.exception, SpoolError) and "1 could not be queued again" in str(result.exception)
    assert letters.spool.names() == ["1" * 32]


@pytest.mark.parametrize(("answer", "left"), [("y\n", 0), ("n\n", 1), ("\n", 1)])
def test_a_person_at_a_terminal_is_asked(letters: DeadLetters, answer: str, left: int) -> None:
    put(letters, "1" * 32)
    with terminal() as (keyboard, _):
        os.write(pty_of[keyboard], answer.encode())
        done = command_line(letters, "discard", "--all", stdin=keyboard)
    assert "Discard 1 dead letter?" in done.stdout
    assert letters.spool.count() == left
    assert (done.returncode == 0) == (left == 0)


def test_nothing_is_asked_where_there_is_nothing_or_one_that_was_named(letters: DeadLetters) -> None:
    assert run(letters, "discard", "--all").exit_code == 0
    put(letters, "1" * 32)
    assert run(letters, "discard", "1111").exit_code == 0
    assert letters.spool.count() == 0
    assert run(letters, "discard", "1111", "--all").exit_code == 2
    assert run(letters, "discard").exit_code == 2


# -- retention -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bite", [1, 1000])
def test_the_oldest_that_are_too_many_are_removed(
    letters: DeadLetters, monkeypatch: pytest.MonkeyPatch, bite: int, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(retention, "_BITE", bite)
    for number in range(6):
        put(letters, f"{number}" * 32, age=100 * number)
    retention.Retention(letters.spool, None, 2).sweep()
    assert [entry.name[0] for entry in letters.entries()] == ["0", "1"]
    assert sum("removed" in record.getMessage() for record in caplog.records) == 4
    retention.Retention(letters.spool, 50, None).sweep()
    assert [entry.name[0] for entry in letters.entries()] == ["0"]


def test_letters_that_come_are_kept_in_bounds_without_a_look_through_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    letters = DeadLetters(read_settings({"state_dir": tmp_path, "dead_max_count": 2}, {}))
    scans: list[str] = []
    scan = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: scans.append(threading.current_thread().name) or scan(path))
    for number in range(50):
        letters.put(Grabbed(b"H:1", b"job", b"u%d" % number, b"x"), None, "why", Outcome("refused"))
    until(lambda: len(os.listdir(tmp_path / "dead")) == 2, "the others are removed")
    assert set(scans) == {"gearwsgi retention"}


# -- curl ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def web() -> Iterator[tuple[int, list[Any]]]:
    """A web server's port, and what it has got: the request line, headers, body."""
    got: list[Any] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            got.append((self.requestline, dict(self.headers), body))
            self.send_response(200)
            self.end_headers()

        do_HEAD = do_GET = do_PUT = do_POST

        def log_message(self, *given: Any) -> None:
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port, got
    server.shutdown()
    thread.join()
    server.server_close()


BODIES = [
    b"@/etc/passwd", b"@secret", b"@-", b"<secret", b"--output x", b"-K secret", b"it's $(touch x) `touch x` \\ \"",
    b"\x00\x01 binary\r\n", b"\xff\xfe", b"line\nline\n", "caf\xe9".encode(), b"x" * 300_000,
]  # fmt: skip


@pytest.mark.parametrize("body", BODIES, ids=lambda body: repr(body[:16]))
def test_curl_sends_the_body_as_it_is_and_no_file(
    letters: DeadLetters, web: tuple[int, list[Any]], tmp_path: Path, body: bytes
) -> None:
    port, got = web
    (tmp_path / "secret").write_text("PRIVATE KEY")
    message = Message("POST", host=f"127.0.0.1:{port}", path="/x", body=body, id="1" * 32)
    put(letters, "1" * 32, message=message.to_bytes())
    send(run(letters, "curl", "1" * 32).stdout, tmp_path)
    ((line, headers, sent),) = got
    assert line == "POST /x HTTP/1.1" and sent == body
    assert "Content-Type" not in headers, "what curl would say of it"
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("path", ["/{a,b}[1-3]?q={c}", "/a/../b/./c", "/-o", "/$(touch$IFS'x')", "/a;touch%20x&b|c"])
def test_curl_asks_for_the_target_as_it_is(
    letters: DeadLetters, web: tuple[int, list[Any]], tmp_path: Path, path: str
) -> None:
    port, got = web
    message = Message("PUT", host=f"127.0.0.1:{port}", path=path, headers=[("X-Empty", ""), ("X-At", "@secret; 'x'")])
    send(write_curl(message, tmp_path / "none"), tmp_path)
    ((line, headers, _),) = got
    assert line == f"PUT {path} HTTP/1.1"
    assert (headers["X-Empty"], headers["X-At"]) == ("", "@secret; 'x'")


def test_curl_does_not_wait_for_the_body_of_an_answer_to_head(web: tuple[int, list[Any]], tmp_path: Path) -> None:
    send(write_curl(Message("HEAD", host=f"127.0.0.1:{web[0]}"), tmp_path / "none"), tmp_path)
    assert web[1][0][0] == "HEAD / HTTP/1.1"


def test_curl_says_that_a_stranger_chose_where_the_request_goes(letters: DeadLetters) -> None:
    put(letters, "1" * 32, message=Message("POST", host="evil.example").to_bytes(), trusted="no")
    assert "never accepted" in run(letters, "curl", "1" * 32).stderr


def send(line: str, folder: Path) -> None:
    subprocess.run(["sh", "-c", line], cwd=folder, check=True, capture_output=True, timeout=60)
