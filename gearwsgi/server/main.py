"""Starts a server in this process, and runs it until it is told to stop."""

import asyncio
import contextlib
import fcntl
import gc
import logging
import os
import resource
import signal
import ssl
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import log
from ..address import Address, parse_listen
from ..errors import ConfigError, SpoolError, StartError
from ..state.spool import Spool, make_private_folder
from .engine import Server
from .protocol import MAX_PACKET
from .store import Durability, Store

__all__ = ["serve"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a server listens and keeps its files, and whose process it is."""

    address: Address
    tls: ssl.SSLContext | None
    state_dir: Path
    parent_fd: int | None


def serve(
    listen: str = "127.0.0.1:4730",
    state_dir: str | Path = "var/gearwsgi",
    *,
    durability: Durability = "normal",
    job_retries: int = 0,
    max_packet: int = MAX_PACKET,
    parent_fd: int | None = None,
    tls_cert: Path | None = None,
    tls_key: Path | None = None,
    tls_ca: Path | None = None,
) -> int:
    """Run a job server in the foreground, until SIGTERM, SIGINT or the text command `shutdown`.

    It listens at once; what it is asked waits until its jobs are loaded. Then it prints one line with the address on
    stdout; if it can't start, one line on stderr.

    Args:
        listen: `host:port` or `[host]:port`; port 0 takes a free one.
        state_dir: the directory of its file, its lock and its dead letters; made where it is missing.
        durability: "full" fsyncs each commit; "normal" survives a crash of the process only.
        job_retries: how often a job is handed to a worker at most; 0 is without end.
        max_packet: the largest packet that is read, in bytes.
        parent_fd: a descriptor whose end of file tells that who started the server is gone: it stops.
        tls_cert, tls_key: serve TLS with this certificate and its key (PEM files).
        tls_ca: let in only clients with a certificate from this authority.

    Returns:
        The exit code: 0 after a clean stop, 1 if it could not start.
    """
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    if log.is_json:
        logging.getLogger().handlers[0].setFormatter(log.JSONFormatter())
    os.umask(0o077)
    try:
        address = parse_listen(listen)
        tls = _tls(tls_cert, tls_key, tls_ca)
        with _owner(Path(state_dir)) as lock:
            store = Store(Path(state_dir) / "jobs.sqlite3", durability)
            dead = Spool(Path(state_dir) / "dead", "dead letter")
            place = Place(address, tls, Path(state_dir), parent_fd)
            asyncio.run(_run(lambda: Server(store, dead, job_retries, max_packet), place, lock))
    except (StartError, ConfigError, SpoolError) as error:
        print(f"gearwsgi server: {error}", file=sys.stderr, flush=True)
        return 1
    return 0


def _tls(cert: Path | None, key: Path | None, ca: Path | None) -> ssl.SSLContext | None:
    if cert is None:
        if key or ca:
            raise ConfigError("TLS needs a certificate (--tls-cert)")
        return None
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, key)
        if ca is not None:
            context.load_verify_locations(ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        raise StartError(f"can't use the TLS files {cert}, {key or cert}, {ca or 'no authority'}: {error}") from error
    return context


@contextlib.contextmanager
def _owner(state_dir: Path) -> Iterator[int]:
    """Be the only server of the directory; a lock file tells others who serves it, and where."""
    path = state_dir / "server.lock"
    try:
        make_private_folder(state_dir)
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StartError(f"can't use the state directory {state_dir}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(lock, 200, 0).decode().strip() or "another process"
            raise StartError(f"the state directory {state_dir} is in use by the server with {owner}") from None
        yield lock
    finally:
        os.close(lock)


async def _run(server_of: Callable[[], Server], place: Place, lock: int) -> None:
    _raise_descriptor_limit()
    _return_large_blocks()
    loop = asyncio.get_running_loop()
    server = server_of()
    loop.set_exception_handler(lambda loop, context: on_trouble(server.warn, loop, context))
    address = place.address
    try:
        address = address._replace(port=await server.listen(address.host, address.port, place.tls))
    except OSError as error:
        await server.close()
        raise StartError(f"can't listen on {address}: {error.strerror or error}") from error
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.stop)
    if place.parent_fd is not None:
        loop.add_reader(place.parent_fd, _parent, loop, place.parent_fd, server)
    os.truncate(lock, 0)
    os.pwrite(lock, f"pid {os.getpid()} on {address}\n".encode(), 0)
    gc.disable()
    try:
        await server.load()
    except StartError:
        await server.close()
        raise
    # Only jobs have been made so far: a full collection would go through all of them and find nothing to free.
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    gc.enable()
    if not server.ended.is_set():
        print(f"gearwsgi server: listening on {address}, pid {os.getpid()}, state in {place.state_dir}", flush=True)
    await server.ended.wait()
    await server.close()


def on_trouble(warn: Callable[[str], None], loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what asyncio says of a failed connection. No traceback: making one without memory would end the server."""
    if not isinstance(context.get("exception"), MemoryError):
        loop.default_exception_handler(context)
        return
    with contextlib.suppress(MemoryError):  # there may not even be room for a line
        warn("no memory for what a connection sends: closed")


def _parent(loop: asyncio.AbstractEventLoop, fd: int, server: Server) -> None:
    if not os.read(fd, 1):
        loop.remove_reader(fd)
        server.stop()


def _return_large_blocks() -> None:
    """Have glibc map large blocks one by one; else it would keep tens of megabytes of freed payloads."""
    if sys.platform == "linux":
        import ctypes

        if hasattr(libc := ctypes.CDLL(None), "mallopt"):
            m_mmap_threshold = -3
            libc.mallopt(m_mmap_threshold, 1024 * 1024)


def _raise_descriptor_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):  # macOS has another limit, too: there are fewer connections then
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
