"""The embedded job server's speed against gearmand, in one run: `python benchmarks/server_bench.py`.

Needs gearmand on the PATH, and Linux. Rounds alternate between the servers and a rate is the median of its rounds:
what the machine does besides falls on all of them alike. Ends with code 1 where a bar is missed.
"""

import argparse
import contextlib
import os
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from gearwsgi.server.embedded import EmbeddedServer

DATA = b"x" * 200
BATCH = 100
HEADER = struct.Struct("!4sII")
CAN_DO, GRAB_JOB_UNIQ, WORK_COMPLETE, SUBMIT_JOB_BG, PRE_SLEEP = 1, 30, 13, 18, 4
NO_JOB = 10


def packet(kind: int, *args: bytes) -> bytes:
    body = b"\0".join(args)
    return HEADER.pack(b"\0REQ", kind, len(body)) + body


class Wire:
    """A bare blocking socket: what it costs is the same for every server."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, timeout=60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""

    def read(self) -> tuple[int, bytes]:
        while len(self.buffer) < 12 or len(self.buffer) < 12 + HEADER.unpack_from(self.buffer)[2]:
            if not (part := self.socket.recv(1 << 20)):
                raise EOFError
            self.buffer += part
        _, kind, size = HEADER.unpack_from(self.buffer)
        body, self.buffer = self.buffer[12 : 12 + size], self.buffer[12 + size :]
        return kind, body


serial = 0


def submit(wire: Wire, count: int, batch: int = 1, function: bytes = b"job", data: bytes = DATA) -> float:
    """Jobs a second, each with a unique of its own."""
    global serial  # noqa: PLW0603
    begin = time.perf_counter()
    for _ in range(count // batch):
        packets = []
        for _ in range(batch):
            serial += 1
            packets.append(packet(SUBMIT_JOB_BG, function, b"%032d" % serial, data))
        wire.socket.sendall(b"".join(packets))
        for _ in range(batch):
            kind, body = wire.read()
            if kind != 8:
                raise RuntimeError(body)
    return count / (time.perf_counter() - begin)


def drain(wire: Wire, count: int, function: bytes = b"job") -> float:
    """Jobs a second of one worker that answers one and grabs the next in one write."""
    wire.socket.sendall(packet(CAN_DO, function) + packet(GRAB_JOB_UNIQ))
    begin = time.perf_counter()
    for done in range(count):
        kind, body = wire.read()
        if kind == NO_JOB:
            raise RuntimeError(f"the queue is empty after {done}")
        last = done + 1 == count
        answer = packet(WORK_COMPLETE, body.partition(b"\0")[0], b"")
        wire.socket.sendall(answer if last else answer + packet(GRAB_JOB_UNIQ))
    return count / (time.perf_counter() - begin)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def gearmand(*options: str) -> Iterator[tuple[str, int]]:
    address = ("127.0.0.1", free_port())
    command = ["gearmand", "-L", address[0], "-p", str(address[1]), "-l", "none", *options]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        for _ in range(200):
            with contextlib.suppress(OSError):
                socket.create_connection(address).close()
                break
            time.sleep(0.05)
        yield address
    finally:
        process.kill()
        process.wait()


def where(server: EmbeddedServer) -> tuple[str, int]:
    host, _, port = server.address.rpartition(":")
    return host, int(port)


def memory(pid: int) -> int:
    """Resident bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def cpu(pid: int) -> float:
    """Seconds of CPU used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


Row = tuple[str, float, str, bool]
rows: list[Row] = []


def show(name: str, value: float, unit: str, passed: bool) -> None:
    rows.append((name, value, unit, passed))
    print(f"{'ok  ' if passed else 'MISS'} {name:<66} {value:>10.2f} {unit}", flush=True)


def compare(addresses: dict[str, tuple[str, int]], scale: int) -> None:
    rates: dict[str, dict[str, list[float]]] = {}
    sizes = {"ours": 10 * scale, "memory": 10 * scale, "sqlite": scale}
    for _ in range(5):
        for name, address in addresses.items():
            wire, size = Wire(address), sizes[name]
            found = rates.setdefault(name, {"single": [], "pipelined": [], "drain": []})
            found["single"].append(submit(wire, size))
            found["pipelined"].append(submit(wire, size * 2, BATCH))
            found["drain"].append(drain(wire, size * 3))
    rate = {name: {what: statistics.median(values) for what, values in found.items()} for name, found in rates.items()}
    print(f"{'jobs a second':<24}{'one by one':>14}{'in hundreds':>14}{'drain':>14}")
    labels = {"ours": "gearwsgi server", "sqlite": "gearmand -q libsqlite3", "memory": "gearmand in memory"}
    for name, found in rate.items():
        print(f"{labels[name]:<24}" + "".join(f"{value:>14.0f}" for value in found.values()))
    for what, against, bar, text in (
        ("single", "sqlite", 5, "durable submits one by one, x gearmand -q libsqlite3 (≥ 5)"),
        ("pipelined", "sqlite", 5, "durable submits in hundreds, x gearmand -q libsqlite3 (≥ 5)"),
        ("drain", "sqlite", 3, "drain, x gearmand -q libsqlite3 (≥ 3)"),
        ("single", "memory", 0.4, "submits one by one, x gearmand in memory (≥ 0.4)"),
    ):
        ratio = rate["ours"][what] / rate[against][what]
        show(text, ratio, "x", ratio >= bar)


def backlog(jobs: int, scale: int) -> None:
    """Two servers, one with a backlog, measured in turns."""
    with EmbeddedServer() as empty, EmbeddedServer() as full:
        wires = {"empty": Wire(where(empty)), "full": Wire(where(full))}
        before = memory(full.pid)
        submit(wires["full"], jobs, BATCH)
        each = (memory(full.pid) - before) / jobs - len(DATA)
        show(f"memory of a job beside its payload, backlog {jobs} (< 1024)", each, "bytes", each < 1024)
        rates: dict[tuple[str, str], list[float]] = {}
        for _ in range(7):
            for name, wire in wires.items():
                submit(wire, scale, BATCH)  # something to drain
                rates.setdefault((name, "submits one by one"), []).append(submit(wire, 5 * scale))
                rates.setdefault((name, "drain"), []).append(drain(wire, 6 * scale))
        for what in ("submits one by one", "drain"):
            ratio = statistics.median(rates["full", what]) / statistics.median(rates["empty", what])
            show(f"{what} with a backlog of {jobs}, x without (≥ 0.9)", ratio, "x", ratio >= 0.9)
        size = sum(path.stat().st_size for path in full.state_dir.iterdir())
        begin = time.perf_counter()
        drain(wires["full"], jobs)
        took = time.perf_counter() - begin
        for _ in range(100):
            if (left := sum(path.stat().st_size for path in full.state_dir.iterdir())) < size / 20:
                break
            time.sleep(0.1)
        show(f"drain of the backlog in {took:.0f} s; its files' size after, of {size / 1e6:.0f} MB (< 5 %)",
             100 * left / size, "%", left < size / 20)  # fmt: skip
        after = memory(full.pid)
        show("memory after it, of what the backlog took", 100 * (after - before) / (each * jobs + 1), "%", True)


def costs() -> None:
    with EmbeddedServer() as server:
        begin = memory(server.pid)
        show("memory at the start", begin / 1e6, "MB", True)
        wires = [Wire(where(server)) for _ in range(300)]
        for wire in wires:
            wire.socket.sendall(packet(CAN_DO, b"job") + packet(PRE_SLEEP))
        time.sleep(0.5)
        used, since = cpu(server.pid), time.perf_counter()
        time.sleep(4)
        share = 100 * (cpu(server.pid) - used) / (time.perf_counter() - since)
        show("300 idle connections (< 5 % of a core)", share, "%", share < 5)
        used, since = cpu(server.pid), time.perf_counter()
        for _ in range(4):
            for wire in wires:
                wire.socket.sendall(packet(PRE_SLEEP))
            time.sleep(1)
        share = 100 * (cpu(server.pid) - used) / (time.perf_counter() - since)
        show("300 sleepers that ask again every second (< 5 % of a core)", share, "%", share < 5)
        for wire in wires:
            wire.socket.close()
        wire = Wire(where(server))
        before = memory(server.pid)
        for size in (64 * 1024 * 1024 - 100, 20_000_000, 64 * 1024 * 1024 - 100):
            submit(wire, 1, data=b"x" * size)
        peak = memory(server.pid)
        drain(wire, 3)
        for _ in range(50):
            after = memory(server.pid)
            if after - before < 16e6:
                break
            time.sleep(0.1)
        show("memory with 148 MB of payloads queued, above before", (peak - before) / 1e6, "MB", True)
        show(
            "memory after they are done, above before (< 16 MB)",
            (after - before) / 1e6,
            "MB",
            after - before < 16e6,
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the jobs")
    quick = parser.parse_args().quick
    scale = 100 if quick else 300
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        ours = stack.enter_context(EmbeddedServer())
        compare(
            {
                "ours": where(ours),
                "sqlite": stack.enter_context(gearmand("-q", "libsqlite3", f"--libsqlite3-db={folder}/g.db")),
                "memory": stack.enter_context(gearmand()),
            },
            scale,
        )
    backlog(20_000 if quick else 200_000, 500)
    costs()
    return 0 if all(row[3] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
