"""A blocking connection to a job server, which sends and receives Gearman's packets; the only place that opens one.

Packets and their parameters are pygearman's (`gearman.protocol`), with the two that it does not know. Packing them is
done here: it happens once for each job in each direction, and pygearman's way copies a dict each time.
"""

import os
import select
import socket
import ssl
import time
from collections import deque

from ..address import Address
from ..errors import ProtocolError, ServerUnavailable
from .packets import ERROR, MAX_PACKET, PacketReader, parse_error

_MAX_TEXT = 64 * 1024 * 1024
"""Bytes that a text command's answer may have: `status` has a line for each queue that there ever was."""
_KEEPALIVE = {
    "TCP_KEEPIDLE": 15,
    "TCP_KEEPALIVE": 15,  # what macOS calls it
    "TCP_KEEPINTVL": 5,
    "TCP_KEEPCNT": 5,
    "TCP_USER_TIMEOUT": 40_000,
}
"""TCP keep-alive: seconds until a silent connection is probed, and between two probes; how many; milliseconds until
what was sent must be confirmed."""


class Connection:
    """A blocking connection to one job server, for one thread at a time. After an error it is closed.

    Args:
        address: the job server.
        connect_timeout: seconds to wait for the connection.
        max_answer: bytes that an answer with data may have.
    """

    def __init__(self, address: Address, connect_timeout: float, max_answer: int = MAX_PACKET) -> None:
        self.address = address
        self._packets = PacketReader(max_answer)
        self._waiting: deque[tuple[int, list[bytes]]] = deque()
        self._socket = open_socket(address, connect_timeout)
        self._socket.setblocking(False)
        # `poll` rather than `select`, which fails from file descriptor 1024 on.
        poller = select.poll()
        poller.register(self._socket, select.POLLIN)
        self._poll = poller.poll
        self.pid = os.getpid()

    def close(self) -> None:
        """Close it; a job that it had grabbed goes back into the job server's queue."""
        self._socket.close()

    def is_stale(self) -> bool:
        """Whether the job server has closed it, or sent what nobody asked for."""
        return bool(self._poll(0))

    def send(self, data: bytes, timeout: float) -> None:
        """Send all of `data`; `timeout` is how many seconds may pass without progress.

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
        """The bytes that come within `left` of `timeout` seconds; none where TLS has nothing whole yet."""
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
        """Send a text command; returns the lines of the answer, without the dot at its end: see `ask`."""
        lines = self.ask(command, timeout).decode("utf-8", "replace").splitlines()
        return lines if _is_single(command) else lines[:-1]

    def ask(self, command: str, timeout: float) -> bytearray:
        """Send a text command; returns the whole answer.

        Args:
            command: the command.
            timeout: seconds until the whole answer has to be here.

        Raises:
            ServerUnavailable: there is no answer, or none that comes to its end.
        """
        self.send(command.encode() + b"\r\n", timeout)
        deadline = time.monotonic() + timeout
        data = bytearray()
        single = _is_single(command)
        while not (data.endswith(b"\n") if single else data == b".\n" or data.endswith(b"\n.\n")):
            try:
                data += self._read(max(0.0, deadline - time.monotonic()), timeout)
                if time.monotonic() > deadline or len(data) > _MAX_TEXT:
                    raise TimeoutError(f"no end of its answer after {timeout:g} s and {len(data)} bytes")
            except OSError as error:
                self.close()
                raise ServerUnavailable(f"job server {self.address}: {error}") from error
        return data


def _is_single(command: str) -> bool:
    """Whether the answer to a text command is a single line, instead of many and a dot."""
    return not command.startswith(("status", "workers", "prioritystatus", "show"))


def keep_alive(sock: socket.socket) -> None:
    """Have the system notice within a minute that the other host, or the way to it, is gone."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        if (option := getattr(socket, name, None)) is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


def open_socket(address: Address, timeout: float) -> socket.socket:
    """A connected socket, with TLS where the address says so.

    Raises:
        ServerUnavailable: nothing answers, or not with TLS.
    """
    try:
        plain = socket.create_connection((address.host, address.port), timeout)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        keep_alive(plain)
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
        raise ServerUnavailable(f"job server {address}: {_describe(error, address)}") from error


def _describe(error: Exception, address: Address) -> str:
    if address.tls is not None and isinstance(error, ssl.SSLError | TimeoutError | ConnectionError):
        return f"no TLS there that can be trusted ({error}); nothing was sent"
    return str(error)
