"""The only socket to a job server: Gearman's packets in bytes, and one blocking connection.

Packets and their parameters are pygearman's (`gearman.protocol`), with the two that it does not know. The packing is
ours: it is done once for each job and each way, and pygearman's copies a dict for it.
"""

import os
import select
import socket
import ssl
import struct
import time
from collections import deque
from collections.abc import Iterator

from gearman import protocol

from .errors import ProtocolError, ServerError, ServerUnavailable
from .settings import Address

CAN_DO: int = protocol.GEARMAN_COMMAND_CAN_DO
SET_CLIENT_ID: int = protocol.GEARMAN_COMMAND_SET_CLIENT_ID
PRE_SLEEP: int = protocol.GEARMAN_COMMAND_PRE_SLEEP
NOOP: int = protocol.GEARMAN_COMMAND_NOOP
GRAB_JOB_UNIQ: int = protocol.GEARMAN_COMMAND_GRAB_JOB_UNIQ
NO_JOB: int = protocol.GEARMAN_COMMAND_NO_JOB
JOB_ASSIGN: int = protocol.GEARMAN_COMMAND_JOB_ASSIGN
JOB_ASSIGN_UNIQ: int = protocol.GEARMAN_COMMAND_JOB_ASSIGN_UNIQ
JOB_CREATED: int = protocol.GEARMAN_COMMAND_JOB_CREATED
WORK_STATUS: int = protocol.GEARMAN_COMMAND_WORK_STATUS
WORK_COMPLETE: int = protocol.GEARMAN_COMMAND_WORK_COMPLETE
WORK_FAIL: int = protocol.GEARMAN_COMMAND_WORK_FAIL
WORK_EXCEPTION: int = protocol.GEARMAN_COMMAND_WORK_EXCEPTION
GET_STATUS: int = protocol.GEARMAN_COMMAND_GET_STATUS
STATUS_RES: int = protocol.GEARMAN_COMMAND_STATUS_RES
ECHO_REQ: int = protocol.GEARMAN_COMMAND_ECHO_REQ
ECHO_RES: int = protocol.GEARMAN_COMMAND_ECHO_RES
ERROR: int = protocol.GEARMAN_COMMAND_ERROR
# Gearman's PROTOCOL document, "Binary Protocol Types"; pygearman has none of these.
SUBMIT_JOB_EPOCH = 36
GET_STATUS_UNIQUE = 41
STATUS_RES_UNIQUE = 42

SUBMIT_BACKGROUND: dict[str, int] = {
    "normal": protocol.GEARMAN_COMMAND_SUBMIT_JOB_BG,
    "high": protocol.GEARMAN_COMMAND_SUBMIT_JOB_HIGH_BG,
    "low": protocol.GEARMAN_COMMAND_SUBMIT_JOB_LOW_BG,
}
SUBMIT_FOREGROUND: dict[str, int] = {
    "normal": protocol.GEARMAN_COMMAND_SUBMIT_JOB,
    "high": protocol.GEARMAN_COMMAND_SUBMIT_JOB_HIGH,
    "low": protocol.GEARMAN_COMMAND_SUBMIT_JOB_LOW,
}

_HEADER = struct.Struct("!4sII")
_REQ: bytes = protocol.MAGIC_REQ_STRING
_RES: bytes = protocol.MAGIC_RES_STRING
_PARAMETERS: dict[int, int] = {
    **{kind: len(names) for kind, names in protocol.GEARMAN_PARAMS_FOR_COMMAND.items()},
    STATUS_RES_UNIQUE: 6,
}
MAX_PACKET = 1 << 30
"""Bytes that an answer may announce; more is not Gearman."""
JOB_TOO_LARGE = -1
"""No packet of Gearman's: a JOB_ASSIGN_UNIQ whose payload was not kept; its size is one parameter more."""
_KEPT = 64 * 1024
"""Bytes that are kept of such a job, for whoever looks where it came from."""


def pack(kind: int, *parameters: bytes) -> bytes:
    """One request packet."""
    body = b"\0".join(parameters)
    return _HEADER.pack(_REQ, kind, len(body)) + body


def pack_submit(queue: str, unique: str, payload: bytes, *, priority: str = "normal", at: int | None = None) -> bytes:
    """The packet that submits a background job, due at the Unix time `at` where that is given.

    gearmand has no delayed jobs with a priority: `at` makes it a normal one.
    """
    if at is None:
        return pack(SUBMIT_BACKGROUND[priority], queue.encode(), unique.encode(), payload)
    return pack(SUBMIT_JOB_EPOCH, queue.encode(), unique.encode(), b"%d" % at, payload)


class PacketReader:
    """Bytes in, packets out; keeps what is not yet whole. No I/O.

    Args:
        max_job: bytes that a job which is handed out may have. Anyone can queue one of a gigabyte: a larger one is not
            kept, and comes as JOB_TOO_LARGE.
    """

    def __init__(self, max_job: int = MAX_PACKET) -> None:
        self._buffer = bytearray()
        self._max_job = max_job
        self._skip = 0
        self._skipped: list[bytes] = []

    def feed(self, data: bytes) -> Iterator[tuple[int, list[bytes]]]:
        """The packets that `data` completes: (type, parameters).

        Raises:
            ProtocolError: the bytes are not Gearman's, or announce more than `MAX_PACKET`.
        """
        if self._skip:
            length = len(data)
            data = data[self._skip :]
            self._skip -= length - len(data)
            if self._skip:
                return
            yield JOB_TOO_LARGE, self._skipped
        buffer: bytes | bytearray = data
        if self._buffer:
            self._buffer += data
            buffer = self._buffer
        start, length = 0, len(buffer)
        while length - start >= 12:
            magic, kind, size = _HEADER.unpack_from(buffer, start)
            end = start + 12 + size
            if size > self._max_job and magic == _RES and kind == JOB_ASSIGN_UNIQ and size > _KEPT:
                if length - start < 12 + _KEPT:
                    break
                self._skipped = [*_split(kind, bytes(buffer[start + 12 : start + 12 + _KEPT])), b"%d" % size]
                start = min(end, length)
                self._skip = end - start
                if not self._skip:
                    yield JOB_TOO_LARGE, self._skipped
                continue
            if magic != _RES or size > MAX_PACKET:
                raise ProtocolError(f"not Gearman's protocol: {bytes(buffer[start : start + 12])!r}")
            if length < end:
                break
            body = bytes(buffer[start + 12 : end])
            start = end
            yield kind, _split(kind, body)
        if buffer is self._buffer:
            del self._buffer[:start]
        elif start < length:
            self._buffer += buffer[start:]


def _split(kind: int, body: bytes) -> list[bytes]:
    count = _PARAMETERS.get(kind, 1)
    parameters = body.split(b"\0", count - 1) if count else []
    if len(parameters) < count and kind != ERROR:
        raise ProtocolError(f"packet {kind} has {len(parameters)} parameters instead of {count}")
    return parameters


def parse_error(parameters: list[bytes], server: str = "") -> ServerError:
    """The exception for an ERROR packet."""
    code, text = [*parameters, b""][:2]
    return ServerError(code.decode("ascii", "replace"), text.decode("utf-8", "replace"), server)


class Connection:
    """A blocking connection to one job server, for one thread at a time. After any error it is closed.

    Args:
        address: the job server.
        connect_timeout: seconds to wait for the connection.
    """

    def __init__(self, address: Address, connect_timeout: float) -> None:
        self.address = address
        self._packets = PacketReader()
        self._waiting: deque[tuple[int, list[bytes]]] = deque()
        self._socket = open_socket(address, connect_timeout)
        self._socket.setblocking(False)
        # `poll` rather than `select`, which fails from file descriptor 1024 on.
        poller = select.poll()
        poller.register(self._socket, select.POLLIN)
        self._poll = poller.poll
        self.pid = os.getpid()

    def close(self) -> None:
        """Close it; the job server puts a job that it had grabbed back into the queue."""
        self._socket.close()

    def is_stale(self) -> bool:
        """Whether the job server has closed it, or sent what nobody asked for."""
        return bool(self._poll(0))

    def send(self, data: bytes, timeout: float) -> None:
        """Send all of `data`; `timeout` counts the seconds without progress.

        Raises:
            ServerUnavailable: it could not be sent.
        """
        sent = 0
        try:
            while True:
                try:
                    sent += self._socket.send(memoryview(data)[sent:] if sent else data)
                    if sent == len(data):
                        return
                except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError) as error:
                    wanted = isinstance(error, ssl.SSLWantReadError)
                    if not (self._poll(timeout * 1000) if wanted else self._is_writable(timeout)):
                        raise TimeoutError(f"nothing taken for {timeout:g} s") from None
        except OSError as error:
            self.close()
            raise ServerUnavailable(f"job server {self.address}: {error}") from error

    def _is_writable(self, seconds: float) -> bool:
        poller = select.poll()
        poller.register(self._socket, select.POLLOUT)
        return bool(poller.poll(seconds * 1000))

    def receive(self, timeout: float) -> tuple[int, list[bytes]]:
        """The next packet, waited for at most `timeout` seconds.

        Raises:
            ServerUnavailable: none came. `TimeoutError` is the cause where the connection still stands.
            ProtocolError: what came is not Gearman's.
        """
        waiting = self._waiting
        if not waiting:
            deadline = time.monotonic() + timeout
            left = timeout
            try:
                while not waiting:
                    waiting.extend(self._packets.feed(self._read(left, timeout)))
                    if not waiting:
                        left = max(0.0, deadline - time.monotonic())
            except ProtocolError:
                self.close()
                raise
            except OSError as error:
                self.close()
                raise ServerUnavailable(f"job server {self.address}: {error}") from error
        return waiting.popleft()

    def _read(self, left: float, timeout: float) -> bytes:
        """What comes within `left` of `timeout` seconds; nothing where TLS has nothing for us yet."""
        pending = isinstance(self._socket, ssl.SSLSocket) and self._socket.pending()
        if not pending and not self._poll(left * 1000):
            raise TimeoutError(f"no answer for {timeout:g} s")
        try:
            data = self._socket.recv(65536)
        except (BlockingIOError, ssl.SSLWantReadError):
            return b""
        if not data:
            raise ConnectionResetError("closed the connection")
        return data

    def expect(self, kind: int, timeout: float) -> list[bytes]:
        """The parameters of the next packet, which must be of this kind.

        Raises:
            ServerError: it is an ERROR.
            ProtocolError: it is another.
            ServerUnavailable: none came.
        """
        got, parameters = self.receive(timeout)
        if got == kind:
            return parameters
        if got == ERROR:
            raise parse_error(parameters, str(self.address))
        self.close()
        raise ProtocolError(f"job server {self.address}: expected packet {kind}, got {got}")

    def admin(self, command: str, timeout: float) -> list[str]:
        """Send a text command and answer its lines, without the last one that is a dot.

        Raises:
            ServerUnavailable: no answer.
        """
        self.send(command.encode() + b"\r\n", timeout)
        data = b""
        single = not command.startswith(("status", "workers", "prioritystatus", "show"))
        while not (data.endswith(b"\n") if single else data == b".\n" or data.endswith(b"\n.\n")):
            try:
                data += self._read(timeout, timeout)
            except OSError as error:
                self.close()
                raise ServerUnavailable(f"job server {self.address}: {error}") from error
        lines = data.decode("utf-8", "replace").splitlines()
        return lines if single else lines[:-1]


def open_socket(address: Address, timeout: float) -> socket.socket:
    """A connected socket, with TLS where the address says so.

    Raises:
        ServerUnavailable: nothing answers, or not with TLS.
    """
    try:
        plain = socket.create_connection((address.host, address.port), timeout)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if address.tls is None:
            return plain
        try:
            context = ssl.create_default_context(cafile=address.tls.ca)
            if address.tls.cert:
                context.load_cert_chain(address.tls.cert, address.tls.key)
            return context.wrap_socket(plain, server_hostname=address.host)
        except BaseException:
            plain.close()
            raise
    except (OSError, ValueError) as error:
        raise ServerUnavailable(f"job server {address}: {_say(error, address)}") from error


def _say(error: Exception, address: Address) -> str:
    if address.tls is not None and isinstance(error, ssl.SSLError | TimeoutError | ConnectionError):
        return f"no TLS there that can be trusted ({error}); nothing was sent"
    return str(error)
