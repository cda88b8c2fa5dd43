"""The ledger: a small file for what must be noted even if the disk is full. It has its room from the beginning.

It holds the number of jobs that the queue's file has, so that a start notices when some are missing; and the ids of
jobs that are done while their rows can't be deleted. It is written in place, through memory that is mapped to the file:
that needs no room and no system call, and outlives the process, however it ends.
"""

import mmap
import os
import struct
from collections.abc import Iterable
from pathlib import Path

from ..errors import StartError

__all__ = ["Ledger"]

HEAD = struct.Struct("<8sqq")  # what it is; jobs before and after the last commit: it may have happened or not
MAGIC = b"gearled1"
ID = struct.Struct("<q")
SIZE = 256 * 1024
PLACES = (SIZE - HEAD.size) // ID.size


class Ledger:
    """The file.

    Args:
        path: made, readable for its owner only, where it is missing.
        sync: whether what is noted as done must be on the disk itself before going on.

    Attributes:
        least: how many jobs the queue's file has at least, as last noted; 0 where nothing was noted.
        done: ids of jobs that are done.

    Raises:
        StartError: it can't be used, or there is no room for it.
    """

    def __init__(self, path: Path, sync: bool = False) -> None:
        self._sync = sync
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                data = os.pread(fd, SIZE + 1, 0)
                if len(data) != SIZE or not data.startswith(MAGIC):
                    data = HEAD.pack(MAGIC, 0, 0).ljust(SIZE, b"\0")
                    _fill(fd, data)
                self._map = mmap.mmap(fd, SIZE)
            finally:
                os.close(fd)
        except OSError as error:
            raise StartError(f"can't use {path}: {error.strerror}") from error
        _, before, after = HEAD.unpack_from(data)
        self.least: int = min(before, after)
        self.done: set[int] = {id for (id,) in ID.iter_unpack(data[HEAD.size :]) if id}

    def expect(self, before: int, after: int) -> None:
        """Note that a commit follows which changes the number of jobs from `before` to `after`."""
        HEAD.pack_into(self._map, 0, MAGIC, before, after)

    def settle(self, count: int) -> None:
        """Note that the commit has happened, and that all jobs that were noted as done are deleted."""
        self.expect(count, count)
        if self.done:
            end = HEAD.size + len(self.done) * ID.size
            self._map[HEAD.size : end] = bytes(end - HEAD.size)
            self.done.clear()

    def note_done(self, ids: Iterable[int]) -> bool:
        """Note that these jobs are done; whether there was room for all.

        Raises:
            OSError: the disk did not take it.
        """
        new = [id for id in ids if id not in self.done]
        fits = new[: PLACES - len(self.done)]
        for place, id in enumerate(fits, len(self.done)):
            ID.pack_into(self._map, HEAD.size + place * ID.size, id)
        self.done.update(fits)
        if fits and self._sync:
            self._map.flush()
        return len(fits) == len(new)

    def close(self) -> None:
        """Close it."""
        self._map.close()


def _fill(fd: int, data: bytes) -> None:
    """Write bytes, so that the file has no hole: what has its room now can be written later."""
    os.ftruncate(fd, 0)
    at = 0
    while at < len(data):
        at += os.pwrite(fd, data[at:], at)
