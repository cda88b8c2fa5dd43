"""A spool is a folder of `.http` files, one for each task. The outbox and the dead letters are spools.

A file has `# key: value` lines, a line `# ---`, and then the message as it travels: an editor's HTTP client opens it,
`grep` finds it. It is written beside its place, fsynced and renamed, so that a crash leaves a whole file or none.
"""

import errno
import fcntl
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from ..errors import SpoolError

_SAFE_NAME = re.compile(r"[0-9A-Za-z][0-9A-Za-z-]{0,80}")
_END = b"# ---\n"
_TITLE = b"### gearwsgi "
_HEAD = 256 * 1024
"""Bytes within which all fields of a letter are; a target alone may have 64 KiB."""


class BadLetter(SpoolError):
    """A file that can't be used, however often it is tried."""


@dataclass(frozen=True, slots=True)
class Letter:
    """What one file of a spool holds.

    Attributes:
        message: the message's bytes.
        fields: what is known of it, such as `queue`, `unique`, `priority`, `at`; in a dead letter also `id`, `service`,
            `reason` and more.
        notes: lines for a reader: the failed attempts, the last response.
    """

    message: bytes
    fields: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def to_bytes(self, title: str) -> bytes:
        """The file's bytes."""
        lines = [_TITLE + title.encode()]
        lines += [f"# {key}: {_flat(value)}".encode("utf-8", "surrogateescape") for key, value in self.fields.items()]
        lines += [f"# | {_flat(note)}".encode("utf-8", "surrogateescape") for note in self.notes]
        return b"\n".join(lines) + b"\n" + _END + self.message

    @classmethod
    def from_bytes(cls, data: bytes) -> "Letter":
        """The letter in a file's bytes.

        Raises:
            BadLetter: they are no letter.
        """
        head, end, message = data.partition(b"\n" + _END)
        if not end:
            raise BadLetter("not a file of gearwsgi's: no '# ---' ends its head, or it was cut off")
        return cls(message, *_read_head(head))


def _read_head(head: bytes) -> tuple[dict[str, str], list[str]]:
    """The fields and notes in a letter's head."""
    if not head.startswith(_TITLE):
        raise BadLetter("not a file of gearwsgi's: it has no '### gearwsgi' at its head")
    fields: dict[str, str] = {}
    notes: list[str] = []
    for line in head.decode("utf-8", "surrogateescape").split("\n")[1:]:
        if line.startswith("# | "):
            notes.append(line[4:])
        else:
            key, _, value = line.removeprefix("# ").partition(": ")
            fields[key] = value
    return fields, notes


def _flat(text: str) -> str:
    return "".join(char if char.isprintable() or "\udc80" <= char <= "\udcff" else " " for char in text)


class Spool:
    """The letters in one folder. It is made, for its owner only, when the first letter comes.

    Args:
        folder: the folder.
        title: what its files are, as they say themselves, such as `dead letter`.
    """

    def __init__(self, folder: Path, title: str) -> None:
        self.folder = folder
        self.title = title

    def put(self, letter: Letter, name: str | None = None) -> str:
        """Write `letter` to disk, durably, and answer its name; without one it gets a name that sorts by time.

        Raises:
            SpoolError: it can't be written: there is no space, or no right to.
        """
        name = name or f"{time.time_ns():020d}-{secrets.token_hex(4)}"
        temporary = self.folder / f".{name}.{os.getpid()}.{secrets.token_hex(4)}"
        try:
            make_private_folder(self.folder.parent)
            make_private_folder(self.folder)
            descriptor = open_private(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            try:
                with open(descriptor, "wb") as file:
                    file.write(letter.to_bytes(self.title))
                    file.flush()
                    os.fsync(file.fileno())
                temporary.replace(self.path(name))
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
            self._sync()
        except OSError as error:
            raise SpoolError(f"can't keep a task in {self.folder}: {error.strerror or error}") from error
        return name

    def names(self) -> list[str]:
        """The letters' names, sorted; in the outbox that is the oldest first.

        Raises:
            SpoolError: the folder can't be read, or others could have put letters there.
        """
        return sorted(name for name, _ in self._entries())

    def count(self) -> int:
        """How many letters there are.

        Raises:
            SpoolError: as `names`.
        """
        return sum(1 for _ in self._entries())

    def dated(self) -> Iterator[tuple[float, str]]:
        """When each letter was written, in Unix time, and its name. In no order, and read only as it is asked for.

        Raises:
            SpoolError: as `names`.
        """
        for name, entry in self._entries():
            with suppress(FileNotFoundError):  # removed meanwhile
                yield entry.stat(follow_symlinks=False).st_mtime, name

    def _entries(self) -> Iterator[tuple[str, "os.DirEntry[str]"]]:
        try:
            self._check()
            with os.scandir(self.folder) as entries:
                for entry in entries:
                    # Other files there, such as an editor's backup, are not ours.
                    if entry.name.endswith(".http") and is_name(entry.name[:-5]):
                        yield entry.name[:-5], entry
        except FileNotFoundError:
            return
        except OSError as error:
            raise SpoolError(f"can't read {self.folder}: {error.strerror or error}") from error

    def get(self, name: str, limit: int | None = None) -> Letter:
        """The letter of that name.

        Args:
            name: its name.
            limit: bytes that it may have; None: any number.

        Raises:
            BadLetter: the file is not one of ours, or has too many bytes.
            SpoolError: there is none, or it can't be read just now.
        """
        with self._reading(name) as file:
            size = os.fstat(file.fileno()).st_size
            if limit is not None and size > limit:
                raise BadLetter(f"{size} bytes are more than a task may have")
            return Letter.from_bytes(file.read())

    def fields(self, name: str) -> Mapping[str, str]:
        """The fields of the letter of that name, read without its message: for lists.

        Raises:
            SpoolError: as `get`.
        """
        with self._reading(name) as file:
            head, end, _ = file.read(_HEAD).partition(b"\n" + _END)
            if not end and len(head) < _HEAD:
                raise BadLetter("not a file of gearwsgi's: no '# ---' ends its head, or it was cut off")
            return _read_head(head)[0]

    @contextmanager
    def _reading(self, name: str) -> Iterator[BinaryIO]:
        """The open file of a letter, which errors name. What is no plain file, such as a pipe, is never waited for."""
        path = self.path(name)
        try:
            self._check()
            with open(path, "rb", opener=_open_plain) as file:
                yield file
        except BadLetter as error:
            raise BadLetter(f"{path}: {error}") from error
        except OSError as error:
            kind = BadLetter if error.errno == errno.ELOOP else SpoolError
            raise kind(f"can't read {path}: {error.strerror or error}") from error

    def modified(self, name: str) -> float:
        """When the letter was written, in Unix time; 0 where it is gone."""
        try:
            return self.path(name).stat().st_mtime
        except OSError:
            return 0.0

    def rename(self, name: str, to: str) -> None:
        """Give the letter another name.

        Raises:
            SpoolError: there is none.
        """
        try:
            self.path(name).replace(self.path(to))
            self._sync()
        except OSError as error:
            raise SpoolError(f"can't rename {self.folder / name}.http: {error.strerror or error}") from error

    def remove(self, name: str) -> bool:
        """Remove the letter; whether it was there."""
        try:
            self.path(name).unlink()
            self._sync()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise SpoolError(f"can't remove {self.folder / name}.http: {error.strerror or error}") from error
        return True

    def set_aside(self, name: str, reason: str) -> Path:
        """Move a file that can't be used to `bad/`, with the reason beside it; answers its new place."""
        bad = self.folder / "bad"
        make_private_folder(bad)
        target = bad / f"{name}.http"
        try:
            self.path(name).replace(target)
            note = open_private(bad / f"{name}.reason", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            with open(note, "w", encoding="utf-8") as file:
                file.write(reason + "\n")
        except OSError as error:
            raise SpoolError(f"can't set {name} aside in {bad}: {error.strerror or error}") from error
        return target

    @contextmanager
    def lock(self) -> Iterator[bool]:
        """Hold the folder's lock, unless another process (or thread with its own Spool) does; whether it is held."""
        make_private_folder(self.folder.parent)
        make_private_folder(self.folder)
        try:
            descriptor = open_private(self.folder / ".lock", os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise SpoolError(f"can't lock {self.folder}: {error.strerror or error}") from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                is_ours = False
            except OSError as error:
                raise SpoolError(f"can't lock {self.folder}: {error.strerror or error}") from error
            else:
                is_ours = True
            yield is_ours
        finally:
            os.close(descriptor)

    def path(self, name: str) -> Path:
        """The file of the letter of that name.

        Raises:
            SpoolError: no letter can have such a name.
        """
        if not _SAFE_NAME.fullmatch(name):
            raise SpoolError(f"{name!r} is no name of a file in {self.folder}")
        return self.folder / f"{name}.http"

    def _check(self) -> None:
        for folder in (self.folder.parent, self.folder):
            _check_private(folder, os.stat(folder))

    def _sync(self) -> None:
        descriptor = os.open(self.folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def is_name(text: str) -> bool:
    """Whether `text` may be a letter's name."""
    return _SAFE_NAME.fullmatch(text) is not None


def _open_plain(path: str, flags: int) -> int:
    """The descriptor of a plain file; a link, a folder or a pipe is refused."""
    descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise BadLetter("no plain file")
    return descriptor


def open_private(path: Path, flags: int) -> int:
    """Open or make a file for its owner only, whatever the umask; its descriptor."""
    descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    os.fchmod(descriptor, 0o600)
    return descriptor


def make_private_folder(folder: Path) -> None:
    """Make `folder`, and what is missing above it, for its owner only, whatever the umask is.

    Raises:
        SpoolError: it is no folder, belongs to someone else, is reached by someone else's link, or everyone may write
            to it.
    """
    try:
        if not os.path.lexists(folder):
            if folder.parent != folder:
                make_parents(folder.parent)
            with suppress(FileExistsError):
                os.mkdir(folder, 0o700)
                os.chmod(folder, 0o700)
        link, status = os.lstat(folder), os.stat(folder)
    except OSError as error:
        raise SpoolError(f"can't use {folder}: {error.strerror or error}") from error
    if stat.S_ISLNK(link.st_mode) and not _is_trusted(link.st_uid):
        raise SpoolError(f"{folder} is a link that user {link.st_uid} made; give the folder itself")
    _check_private(folder, status)


def _check_private(folder: Path, status: os.stat_result) -> None:
    if not stat.S_ISDIR(status.st_mode):
        raise SpoolError(f"{folder} is not a folder; give another state directory")
    if not _is_trusted(status.st_uid):
        raise SpoolError(f"{folder} belongs to user {status.st_uid}; run this as that user, or give another one")
    if status.st_mode & stat.S_IWOTH:
        raise SpoolError(f"{folder} can be written by everyone; `chmod 700 {folder}`")


def _is_trusted(user: int) -> bool:
    """Whether this user is the one that we run as, or root: then we trust what belongs to it."""
    return user in (os.geteuid(), 0)


def make_parents(folder: Path) -> None:
    """Make the missing folders down to `folder`, for their owner only; those that exist are left as they are."""
    if folder.is_dir():
        return
    try:
        if folder.parent != folder:
            make_parents(folder.parent)
        os.mkdir(folder, 0o700)
        os.chmod(folder, 0o700)
    except FileExistsError:
        return
    except OSError as error:
        raise SpoolError(f"can't make {folder}: {error.strerror or error}") from error
