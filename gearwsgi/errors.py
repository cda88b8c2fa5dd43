"""All errors that gearwsgi raises of its own: one class to catch them all, one for each thing to do about it."""

from collections.abc import Sequence
from typing import Any

__all__ = [
    "AppLoadError",
    "BadDelivery",
    "BadMessage",
    "BadSignature",
    "CallFailed",
    "CallTimeout",
    "ConfigError",
    "GearwsgiError",
    "InvalidTask",
    "JobTimeout",
    "ProtocolError",
    "RecordsError",
    "RecordsUnavailable",
    "ResultNotKept",
    "ResultPending",
    "ServerError",
    "ServerUnavailable",
    "SpoolError",
    "StartError",
    "TaskDead",
    "UnknownEntry",
    "UnknownService",
    "UnknownTask",
]

EXIT_PROBLEM = 1
"""Exit code of `check`, and of `status`, where something is wrong with the site."""
EXIT_ERROR = 3
"""Exit code of a command that can't do what it was asked for."""
EXIT_APP = 4
"""Exit code where the application can't be loaded."""
EXIT_FORCED = 5
"""Exit code of a worker where jobs were cut off: by a second signal, or the end of the graceful time-out."""


class GearwsgiError(Exception):
    """The root: `except GearwsgiError` catches all of this package's errors and no other's.

    Attributes:
        receipts: where several jobs were submitted together: where each of those is that were queued all the same.
    """

    receipts: Sequence[Any] = ()


class ConfigError(GearwsgiError, ValueError):
    """A setting is unknown or has a value that can't work; raised where the setting is given."""


class AppLoadError(GearwsgiError):
    """`module:name` can't be imported, isn't there, or holds no GearmanMiddleware."""


class StartError(GearwsgiError):
    """A process of ours can't start: a port is taken, a state directory is not usable."""


class InvalidTask(GearwsgiError, ValueError):
    """A task can't be written as a message; raised at the call, before anything is submitted."""


class UnknownService(InvalidTask):
    """The service is no alias, no path and no dotted name."""


class UnknownEntry(GearwsgiError, LookupError):
    """The schedule has no entry of this name."""


class BadMessage(GearwsgiError, ValueError):
    """A payload is no message that may be replayed; the text says why."""


class BadDelivery(GearwsgiError, ValueError):
    """A webhook that its sender can't have signed like this, or too long ago; the text, which is logged, says why."""


class BadSignature(BadMessage):
    """The payload has no signature, a wrong one, one for another queue, or one that is too old."""


class ServerUnavailable(GearwsgiError, ConnectionError):
    """No job server answered in time. Nothing is known to be queued.

    Attributes:
        sent_to: the job server that was sent the job and did not answer in time, so that it may have it; empty: none.
    """

    sent_to: str = ""


class ServerError(GearwsgiError):
    """The job server answered ERROR.

    Attributes:
        code: Gearman's code in capitals, such as `QUEUE_ERROR`.
    """

    def __init__(self, code: str, text: str, server: str = "") -> None:
        super().__init__(f"job server {server} answered {code}: {text}".replace("  ", " "))
        self.code = code


class ProtocolError(GearwsgiError):
    """Bytes from the other side that are not Gearman's protocol."""


class CallTimeout(GearwsgiError, TimeoutError):
    """`call()` got no answer within its timeout."""


class CallFailed(GearwsgiError):
    """The worker answered WORK_FAIL to a `call()`: the message was refused, its reason is in the dead letters."""


class SpoolError(GearwsgiError):
    """The state directory can't be used, or holds no file of that name."""


class RecordsError(GearwsgiError):
    """What was asked of the records can't be had: one of those below."""


class RecordsUnavailable(RecordsError):
    """The records are off, or their database is away or not usable; tasks run all the same."""


class UnknownTask(RecordsError, LookupError):
    """Nobody knows a task with this id, or the shortened id is the beginning of several.

    Attributes:
        is_ambiguous: whether several tasks have an id that begins so.
    """

    def __init__(self, text: str, *, is_ambiguous: bool = False) -> None:
        super().__init__(text)
        self.is_ambiguous = is_ambiguous


class ResultPending(RecordsError):
    """The task has not ended yet."""


class TaskDead(RecordsError):
    """The task did not succeed and is not tried again: it is a dead letter, was cancelled or discarded.

    Attributes:
        reason: why.
    """

    def __init__(self, text: str, reason: str) -> None:
        super().__init__(text)
        self.reason = reason


class ResultNotKept(RecordsError):
    """The task is done, and its response is not kept: nobody asked for it, it was too large, or its time is over."""


class JobTimeout(GearwsgiError):
    """Raised within a job when its time limit is over, so that its `finally` blocks run."""
