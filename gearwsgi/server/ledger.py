"""What must be noted even where the disk is full: a small file that was given its room ahead.

It holds how many jobs the queue's file has, so that a start sees where some are missing, and the ids of jobs that are
done while their rows can't be deleted. It is written in place; the page cache keeps it over a crash of the process.
"""

import contextlib
import os
import struct
from collections.abc import Iterable
from pathlib import Path

from ..errors import StartError

__all__ = ["Ledger"]

HEAD = struct.Struct("<8sqq")  # what it is; jobs before and after the last commit: it may have happened or not
MAGIC = b"gearled1"
ID = struct.Struct("<q")
SIZE = 1024 * 1024
PLACES = (SIZE - HEAD.size) // ID.size


class Ledger:
    """The file.

    Args:
        path: made, readable for its owner only, where it is missing.
        sync: have it on the disk itself before going on.

    Attributes:
        least: jobs that the queue's file has at least, by what was noted last; 0 where nothing was.
        done: ids of jobs that are done.

    Raises:
        StartError: it can't be used, or there is no room for it.
    """

    def __init__(self, path: Path, sync: bool = False) -> None:
        self.done: set[int] = set()
        self.least = 0
        self._sync = sync
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                self._read()
            except BaseException:
                os.close(self._fd)
                raise
        except OSError as error:
            raise StartError(f"can't use {path}: {error.strerror}") from error

    def _read(self) -> None:
        data = os.pread(self._fd, SIZE, 0)
        if len(data) < SIZE or not data.startswith(MAGIC):
            data = HEAD.pack(MAGIC, 0, 0).ljust(SIZE, b"\0")
            os.ftruncate(self._fd, 0)
            self._write(data, 0)  # bytes, not a hole: a place that is written to now can be written to later
        _, before, after = HEAD.unpack_from(data)
        self.least = min(before, after)
        places = memoryview(data)[HEAD.size : HEAD.size + PLACES * ID.size]
        self.done = {id for (id,) in ID.iter_unpack(places) if id}

    def expect(self, before: int, after: int) -> None:
        """A commit follows, which changes the number of jobs from `before` to `after`."""
        os.pwrite(self._fd, HEAD.pack(MAGIC, before, after), 0)

    def note_done(self, ids: Iterable[int]) -> bool:
        """Note that these jobs are done; whether there was a place for all."""
        new = [id for id in ids if id not in self.done]
        fits = new[: PLACES - len(self.done)]
        if fits:
            self._write(b"".join(map(ID.pack, fits)), HEAD.size + len(self.done) * ID.size)
            self.done.update(fits)
        return len(fits) == len(new)

    def clear(self) -> None:
        """All that was noted as done is deleted now."""
        if self.done:
            with contextlib.suppress(OSError):  # what stays names jobs that are gone, and no id comes twice
                self._write(bytes(len(self.done) * ID.size), HEAD.size)
            self.done.clear()

    def _write(self, data: bytes, at: int) -> None:
        while data:
            sent = os.pwrite(self._fd, data, at)
            data, at = data[sent:], at + sent
        if self._sync:
            os.fsync(self._fd)

    def close(self) -> None:
        """Close it."""
        os.close(self._fd)
