"""The job that every peer does: note when it began and ended, and wait in between if it is told to.

Each job owns one slot of a file that all processes map, so nothing has to be locked, nothing is written in a
system call, and CLOCK_MONOTONIC is one clock for the whole machine.
"""

import mmap
import os
import struct
import time
from pathlib import Path

SLOT = struct.Struct("=QQQ")  # began (ns), process, ended (ns); "ended" last, since readers wait for it
CAPACITY = 2_000_000  # a sparse file: only the slots in use take room

_map: mmap.mmap | None = None


def create(path: Path) -> None:
    """A new, empty file of slots."""
    with path.open("wb") as file:
        file.truncate(CAPACITY * SLOT.size)


def open_map(path: str) -> mmap.mmap:
    fd = os.open(path, os.O_RDWR)
    try:
        return mmap.mmap(fd, 0)
    finally:
        os.close(fd)


def work(number: int, wait: float = 0.0) -> None:
    """Do job `number`: stamp its slot, wait `wait` milliseconds, stamp again."""
    global _map  # noqa: PLW0603 - mapped at the first job, since a forked child should not share a parent's position
    if _map is None:
        _map = open_map(os.environ["BENCH_STAMPS"])
    began = time.monotonic_ns()
    if wait:
        time.sleep(wait / 1000)
    SLOT.pack_into(_map, number * SLOT.size, began, os.getpid(), time.monotonic_ns())
