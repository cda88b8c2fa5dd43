"""The text commands, which `gearadmin` sends, or somebody with `nc`."""

import os
import time
from collections.abc import Callable, Iterable
from itertools import chain, islice
from typing import Protocol

from .._version import __version__
from ..message.glance import glance
from .jobs import DELAYED, RUNNING, Function, Job, Peer
from .queues import Queue

__all__ = ["Host", "run"]

OK = b"OK\r\n"
PRINTABLE = bytes(byte if byte >= 32 else ord("?") for byte in range(256))  # what would break a line or a column


class Host(Protocol):
    """The server, as far as the commands need it."""

    queue: Queue

    def peers(self) -> Iterable[tuple[int, str, Peer]]: ...
    def fail(self, job: Job, clients: list[Peer]) -> None: ...
    def stop(self, graceful: bool = False) -> None: ...


def run(host: Host, line: bytes) -> bytes:
    """The answer to one line, line ends included."""
    words = line.split()
    name = words[0].lower() if words else b""
    command = COMMANDS.get(name)
    return command(host, words[1:]) if command else _unknown(name)


def _unknown(name: bytes) -> bytes:
    return b"ERR UNKNOWN_COMMAND Unknown+server+command" + name + b"\r\n"


def _incomplete(name: bytes) -> bytes:
    return b"ERR INVALID_ARGUMENTS An+incomplete+set+of+arguments+was+sent+to+this+command+" + name + b"\r\n"


def _table(lines: Iterable[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in lines) + b".\n"


def _shown(name: bytes) -> bytes:
    return name.translate(PRINTABLE)


def _status(host: Host, words: list[bytes]) -> bytes:
    return _table(
        b"%s\t%d\t%d\t%d" % (_shown(f.name), f.total, f.running, f.workers) for f in host.queue.functions.values()
    )


def _priority_status(host: Host, words: list[bytes]) -> bytes:
    return _table(
        b"%s\t%d\t%d\t%d\t%d"
        % (_shown(f.name), len(f.lines[0]), len(f.lines[1]) + f.delayed, len(f.lines[2]), f.workers)
        for f in host.queue.functions.values()
    )


def _workers(host: Host, words: list[bytes]) -> bytes:
    return _table(
        b" ".join([b"%d %s %s :" % (fd, address.encode(), _shown(peer.name)), *map(_shown, peer.functions)])
        for fd, address, peer in host.peers()
    )


def _version(host: Host, words: list[bytes]) -> bytes:
    return b"OK %s+gearwsgi\n" % __version__.encode()


def _getpid(host: Host, words: list[bytes]) -> bytes:
    return b"OK %d\n" % os.getpid()


def _verbose(host: Host, words: list[bytes]) -> bytes:
    return b"OK INFO\n"


def _show(host: Host, words: list[bytes]) -> bytes:
    jobs = host.queue.jobs.values()
    match [word.lower() for word in words]:
        case [b"jobs"]:
            return _table(
                b"%s\t%d\t0\t%d" % (host.queue.handle(job), max(0, job.attempts - (job.state == RUNNING)), job.durable)
                for job in jobs
            )
        case [b"unique", b"jobs"]:
            return _table(_shown(job.unique) for job in jobs)
        case [b"queues"]:
            now = time.time()
            return _table(_queue(function, now) for function in host.queue.functions.values())
        case [b"waiting", number] if number.isdigit() and len(number) < 10:
            ready = (job for f in host.queue.functions.values() for line in f.lines for job in line.values())
            later = (job for job in jobs if job.state == DELAYED)
            return _table(map(_waiting, islice(chain(ready, later), int(number))))
    return b"ERR UNKNOWN_SHOW_ARGUMENTS\r\n" if words else _unknown(b"show")


def _queue(f: Function, now: float) -> bytes:
    """What gearmand does not tell: how many jobs are ready, how many delayed, and how long the oldest has waited."""
    first = [next(iter(line.values())) for line in f.lines if line]
    oldest = max(0.0, now - min(map(_since, first))) if first else 0.0
    return b"%s\t%d\t%d\t%d\t%d\t%.3f" % (_shown(f.name), f.ready, f.delayed, f.running, f.workers, oldest)


def _waiting(job: Job) -> bytes:
    """A job that waits: its queue, its unique, the service, and when it is due (seconds since 1970; 0: at once)."""
    said = glance(job.data)
    service = _shown(said[0]) if said is not None else b"-"
    return b"%s\t%s\t%s\t%.3f" % (_shown(job.function.name), _shown(job.unique), service, job.due)


def _since(job: Job) -> float:
    """Since when a job waits: by its message, which survives restarts, or else since it came here."""
    said = glance(job.data)
    return min(job.since, said[1]) if said is not None else job.since


def _cancel(host: Host, words: list[bytes]) -> bytes:
    if len(words) < 2 or words[0].lower() != b"job":
        return _unknown(b"cancel")
    job = host.queue.job(words[1])
    if job is None:
        return b"ERR UNKNOWN_JOB\r\n"
    host.fail(job, host.queue.cancel(job))
    return OK


def _maxqueue(host: Host, words: list[bytes]) -> bytes:
    if not words:
        return _incomplete(b"maxqueue")
    try:
        sizes = [max(0, int(word)) for word in words[1:4]]
    except ValueError:
        return b"ERR INVALID_ARGUMENTS maxqueue+takes+numbers\r\n"
    # One number is for all three priorities; three are for high, normal and low; none lifts the limits.
    limits = host.queue.function(words[0]).limits
    limits[:] = (sizes + [0] * 3)[:3] if len(sizes) > 1 else (sizes or [0]) * 3
    return OK


def _create(host: Host, words: list[bytes]) -> bytes:
    if len(words) < 2 or words[0].lower() != b"function":
        return _incomplete(b"create")
    host.queue.function(words[1])
    return OK


def _drop(host: Host, words: list[bytes]) -> bytes:
    if len(words) < 2 or words[0].lower() != b"function":
        return _incomplete(b"drop")
    match host.queue.drop_function(words[1]):
        case None:
            return b"ERR function not found\r\n"
        case False:
            return b"ERR there are still connected workers or executing clients\r\n"
    return OK


def _shutdown(host: Host, words: list[bytes]) -> bytes:
    if words not in ([], [b"graceful"]):
        return _unknown(b"shutdown")
    host.stop(graceful=bool(words))
    return OK


COMMANDS: dict[bytes, Callable[[Host, list[bytes]], bytes]] = {
    b"status": _status,
    b"prioritystatus": _priority_status,
    b"workers": _workers,
    b"version": _version,
    b"getpid": _getpid,
    b"verbose": _verbose,
    b"show": _show,
    b"cancel": _cancel,
    b"maxqueue": _maxqueue,
    b"create": _create,
    b"drop": _drop,
    b"shutdown": _shutdown,
}
