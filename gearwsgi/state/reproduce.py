"""A dead letter's request as a curl command line, and as a test. Pure text."""

import shlex
from pathlib import Path

from ..message.model import Message
from .dead import DeadLetter

_INLINE = 8192
"""Bytes of a body that is put into the command line; a longer one, or one that is no text, is read from the letter's
file."""
ENDS_A_PROCESS = ("timeout", "lost")
"""Outcomes that end a worker process, and so can't be shown in a test's own."""
_WIDTH = 90
"""Bytes of a body in a line of a test."""
_MARGIN = 30.0
"""Seconds that a test waits beyond the time limit, for the worker to start and to end."""


def write_curl(task: Message, file: Path) -> str:
    """A shell command line that sends the request as it is. No part of it is taken for a file, a pattern or an option.

    Args:
        task: the request.
        file: the letter's file, at whose end the body is.
    """
    words = ["curl", "--include", "--globoff", "--path-as-is"]
    words += ["--head"] if task.method == "HEAD" else ["--request", task.method]
    for name, value in task.headers:
        raw = value.encode("latin-1").decode("utf-8", "surrogateescape")  # the same bytes as they came
        words += ["--header", f"{name}: {raw}" if raw else f"{name};"]
    before = []
    if task.body:
        if not any(name.lower() == "content-type" for name, _ in task.headers):
            words += ["--header", "Content-Type:"]  # without it, curl would say that it is a form
        text = task.body.decode("utf-8", "replace")
        if len(task.body) <= _INLINE and text.isprintable() and text.encode() == task.body:
            words += ["--data-raw", text]
        else:
            before = ["tail", "-c", str(len(task.body)), str(file), "|"]
            words += ["--data-binary", "@-"]
    words.append(task.url)
    return " ".join([*(word if word == "|" else _quote(word) for word in before), *map(_quote, words)])


def _quote(word: str) -> str:
    """A word for a shell. Where it is no printable text, in the `$'…'` form of bash, zsh and ksh."""
    if word.isprintable():
        return shlex.quote(word)
    return "$'" + "".join(map(_escape, word)) + "'"


def _escape(char: str) -> str:
    if char in "\\'":
        return "\\" + char
    if char.isprintable():
        return char
    return "".join(f"\\x{byte:02x}" for byte in char.encode("utf-8", "surrogateescape"))


def write_test(letter: DeadLetter, payload: bytes, app: str, name: str, limit: float) -> str:
    """The text of a test.

    Args:
        letter: the dead letter that it is about.
        payload: its request.
        app: `module:name`.
        name: what the test's name ends with.
        limit: seconds that the task may take.
    """
    target = letter.target.partition("?")[0]
    service = "_".join(part for part in "".join(c if c.isalnum() else " " for c in target).lower().split())
    lines = "".join(f"    {line!r}\n" for line in _lines(payload))
    how = _in_a_worker(limit) if letter.outcome in ENDS_A_PROCESS else _in_memory(letter.queue)
    return (
        f'"""A task that died at {_plain(letter.at)}: {_plain(letter.reason)}.\n\n'
        f"Written by `gearwsgi dead test {_plain(letter.id)}`. It fails as the task did, until that is mended.\n"
        f"The application is the fixture gearman_app's, or `gearwsgi_app = {app}` in pytest's configuration.\n"
        '"""\n\n'
        f"MESSAGE = (\n{lines})\n\n\n"
        f"def test_{service}_{name}{how}"
    )


def _in_memory(queue: str) -> str:
    return (
        "(gearman_tasks) -> None:\n"
        f"    gearman_tasks.put(MESSAGE, queue={queue!r})\n"
        "    (run,) = gearman_tasks.run()\n"
        '    assert run.fate == "done", run.reason\n'
    )


def _in_a_worker(limit: float) -> str:
    """For a task that ran over its time limit or ended its process: it would do that to the test's own, too."""
    return (
        "(gearman_live) -> None:\n"
        "    gearman_live.put(MESSAGE)\n"
        f"    gearman_live.wait(timeout={limit + _MARGIN:g})  # over the task's own limit, X-Gearman-Timeout\n"
        "    assert not gearman_live.dead, gearman_live.dead[0].reason\n"
    )


def _plain(text: str) -> str:
    """Text, whoever wrote it, that can safely stand in a docstring."""
    return "".join(char if char.isprintable() and char not in '\\"' else "?" for char in text)


def _lines(payload: bytes) -> list[bytes]:
    """The message in short pieces: its head line by line, its body cut up."""
    head, _, body = payload.partition(b"\r\n\r\n")
    lines = [line + b"\r\n" for line in head.split(b"\r\n")]
    lines.append(b"\r\n")
    return lines + [body[place : place + _WIDTH] for place in range(0, len(body), _WIDTH)]
