"""Finds what processes must not share: connections and event loops that an application has opened while it was loaded.

Two processes that use one connection read each other's answers. This looks for connected stream sockets, which carry a
conversation; for SQLite's files, which must not be open over a fork; and for asyncio's event loops, since a process
would take what is to wake another's. Datagram sockets (syslog, statsd) don't count, because each datagram is complete
in itself; nor do socket pairs, because both ends are the process's own.
"""

import contextlib
import gc
import os
import stat
import sys
from socket import SOCK_SEQPACKET, SOCK_STREAM, socket  # before the application is loaded: gevent replaces them
from typing import Any

from ..address import Address
from ..submit.middleware import GearmanMiddleware
from .loading import load_application

_SQLITE = b"SQLite format 3\0"


def load_and_look(path: str) -> tuple[Any, GearmanMiddleware, list[str]]:
    """Load an application as `load_application` does. Third, what it then holds that two processes must not share: the
    peers of connections, and event loops.

    Before that it closes what can be opened again without loss: Django's database connections, and our own.

    Raises:
        AppLoadError: as `load_application`.
    """
    before = _descriptors()
    application, middleware = load_application(path)
    middleware.client.close()
    _close_django()
    found = _connections(before) + _event_loops()
    if found:
        gc.collect()  # closes what is unreachable, but part of a reference cycle
        found = _connections(before) + _event_loops()
    return application, middleware, found


def _event_loops() -> list[str]:
    module: Any = sys.modules.get("asyncio.events")
    if module is None:
        return []
    # By the real type: an object that poses as another (a framework's proxy) must not be asked now.
    loops = [each for each in gc.get_objects() if issubclass(type(each), module.AbstractEventLoop)]
    return ["an event loop of asyncio" for loop in loops if not loop.is_closed()][:1]


def _close_django() -> None:
    module: Any = sys.modules.get("django.db")
    if module is not None and sys.modules["django.conf"].settings.configured:
        module.connections.close_all()


def _descriptors() -> dict[int, tuple[int, int]]:
    """The open descriptors: for each the device and inode of what it stands for."""
    found = {}
    try:
        numbers = [int(name) for name in os.listdir("/dev/fd")]
    except OSError:  # some containers have no such folder
        numbers = list(range(1024))
    for number in numbers:
        with contextlib.suppress(OSError):  # closed since: such as the descriptor that listed them
            status = os.fstat(number)
            found[number] = (status.st_dev, status.st_ino)
    return found


def _connections(before: dict[int, tuple[int, int]]) -> list[str]:
    """The peers of connections that were opened since `before`."""
    new = [number for number, file in _descriptors().items() if before.get(number) != file]
    peers = [_peer(number) for number in sorted(new)]
    return [peer for peer in peers if peer]


def _peer(descriptor: int) -> str:
    """The other end of a connection; empty where the descriptor is none."""
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISREG(mode):
            return f"the SQLite file {_name(descriptor)}" if os.pread(descriptor, 16, 0) == _SQLITE else ""
        return _socket_peer(descriptor) if stat.S_ISSOCK(mode) else ""
    except OSError:
        return ""  # not connected; or a file that can't be read, which a file of SQLite's can


def _socket_peer(descriptor: int) -> str:
    waits = os.get_blocking(descriptor)
    sock = socket(fileno=descriptor)
    try:
        if sock.type not in (SOCK_STREAM, SOCK_SEQPACKET):
            return ""
        peer = sock.getpeername()
    finally:
        sock.detach()
        os.set_blocking(descriptor, waits)  # restore it: a default time-out, where one is set, has changed it
    if isinstance(peer, tuple):
        host, port = peer[:2]
        return str(Address(str(host), port))
    return os.fsdecode(peer)


def _name(descriptor: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return f"at descriptor {descriptor}"
