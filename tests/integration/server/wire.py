"""A bare socket that speaks Gearman: written from the protocol's text, with nothing of gearwsgi in it."""

import contextlib
import socket
import struct
import time
from collections.abc import Callable
from typing import Any

HEADER = struct.Struct("!4sII")
CAN_DO, CANT_DO, RESET_ABILITIES, PRE_SLEEP, NOOP, SUBMIT_JOB, JOB_CREATED, GRAB_JOB = 1, 2, 3, 4, 6, 7, 8, 9
NO_JOB, JOB_ASSIGN, WORK_STATUS, WORK_COMPLETE, WORK_FAIL, GET_STATUS, ECHO_REQ, ECHO_RES = range(10, 18)
SUBMIT_JOB_BG, ERROR, STATUS_RES, SUBMIT_JOB_HIGH, SET_CLIENT_ID, CAN_DO_TIMEOUT = 18, 19, 20, 21, 22, 23
WORK_EXCEPTION, OPTION_REQ, OPTION_RES, WORK_DATA, WORK_WARNING, GRAB_JOB_UNIQ, JOB_ASSIGN_UNIQ = range(25, 32)
SUBMIT_JOB_HIGH_BG, SUBMIT_JOB_LOW, SUBMIT_JOB_LOW_BG, SUBMIT_JOB_EPOCH = 32, 33, 34, 36
SUBMIT_REDUCE_JOB, GRAB_JOB_ALL, GET_STATUS_UNIQUE, STATUS_RES_UNIQUE = 37, 39, 41, 42
PATIENCE = 20.0  # seconds that anything may take before a test gives up


def packet(kind: int, *args: bytes, magic: bytes = b"\0REQ") -> bytes:
    body = b"\0".join(args)
    return HEADER.pack(magic, kind, len(body)) + body


def until(condition: Callable[[], Any], what: str = "") -> Any:
    """Poll until `condition` is true; answers its value."""
    deadline = time.monotonic() + PATIENCE
    while not (value := condition()):
        assert time.monotonic() < deadline, f"never became true: {what or condition}"
        time.sleep(0.005)
    return value


class Wire:
    """One connection."""

    def __init__(self, address: tuple[str, int], **options: Any) -> None:
        self.socket = socket.create_connection(address, timeout=PATIENCE, **options)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""

    def send(self, kind: int, *args: bytes) -> None:
        self.socket.sendall(packet(kind, *args))

    def raw(self, data: bytes) -> None:
        self.socket.sendall(data)

    def _more(self) -> None:
        part = self.socket.recv(1 << 20)
        if not part:
            raise EOFError
        self.buffer += part

    def read(self) -> tuple[int, list[bytes]]:
        """The next packet: its type and its arguments (the last one may hold NULs that this splits at)."""
        while len(self.buffer) < 12 or len(self.buffer) < 12 + HEADER.unpack_from(self.buffer)[2]:
            self._more()
        magic, kind, size = HEADER.unpack_from(self.buffer)
        assert magic == b"\0RES"
        body, self.buffer = self.buffer[12 : 12 + size], self.buffer[12 + size :]
        return kind, body.split(b"\0") if body else []

    def expect(self, kind: int) -> list[bytes]:
        """The arguments of the next packet, which must be of this type."""
        got, args = self.read()
        assert got == kind, (got, args)
        return args

    def error(self) -> bytes:
        """The code of the ERROR that must come next."""
        return self.expect(ERROR)[0]

    def nothing_more(self) -> None:
        """All that was sent so far is answered, and nothing else has come."""
        self.send(ECHO_REQ, b"barrier")
        assert self.expect(ECHO_RES) == [b"barrier"]

    def text(self, command: bytes) -> bytes:
        """The first line that a text command answers."""
        self.raw(command + b"\r\n")
        while b"\n" not in self.buffer:
            self._more()
        line, _, self.buffer = self.buffer.partition(b"\n")
        return line.rstrip(b"\r")

    def table(self, command: bytes) -> list[list[bytes]]:
        """The rows that a text command answers, up to the line with the dot."""
        self.raw(command + b"\r\n")
        while not (self.buffer == b".\n" or self.buffer.endswith(b"\n.\n")):
            self._more()
        lines, self.buffer = self.buffer.split(b"\n")[:-2], b""
        return [line.split(b"\t") for line in lines]

    def status(self, function: bytes) -> tuple[int, ...] | None:
        """Jobs, running jobs and workers of a function."""
        rows = {row[0]: tuple(map(int, row[1:])) for row in self.table(b"status")}
        return rows.get(function)

    def submit(self, function: bytes, unique: bytes = b"", data: bytes = b"d", kind: int = SUBMIT_JOB_BG) -> bytes:
        """Submit a job; its handle."""
        self.send(kind, function, unique, data)
        return self.expect(JOB_CREATED)[0]

    def later(self, function: bytes, unique: bytes, at: float, data: bytes = b"d") -> bytes:
        """Submit a delayed job; its handle."""
        self.send(SUBMIT_JOB_EPOCH, function, unique, b"%d" % at, data)
        return self.expect(JOB_CREATED)[0]

    def grab(self) -> list[bytes] | None:
        """Handle, function, unique and data of the next job; None where there is none."""
        self.send(GRAB_JOB_UNIQ)
        kind, args = self.read()
        while kind == NOOP:
            kind, args = self.read()
        assert kind in (JOB_ASSIGN_UNIQ, NO_JOB), (kind, args)
        return args if kind == JOB_ASSIGN_UNIQ else None

    def complete(self, handle: bytes, data: bytes = b"") -> None:
        self.send(WORK_COMPLETE, handle, data)

    def drain(self) -> list[bytes]:
        """Grab and complete until there is no job; their data."""
        found = []
        while job := self.grab():
            found.append(job[3])
            self.complete(job[0])
        return found

    def ended(self) -> bool:
        """Whether the server closed the connection."""
        try:
            while True:
                self._more()
        except (EOFError, ConnectionError):
            return True

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.socket.close()
