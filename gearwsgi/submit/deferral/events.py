"""A task's status as a stream of events: one for each change.

A stream holds a thread of the web server. So there are only a few at a time, none lasts long, and there is none where
the server has only one thread. In their place a client gets what there is to say now, and an end: a browser's
EventSource asks again by itself.
"""

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from ...errors import RecordsUnavailable, ServerUnavailable
from ...state.records import model
from ...state.records.model import Record
from .answer import EVENTS, line

_HELD = threading.BoundedSemaphore(2)
"""How many streams a process holds at a time: a small web server has four threads."""
_LONGEST = 30.0
"""Seconds that a stream lasts, at most."""
_LOOK = 0.5
"""Seconds between two looks."""
_SIGN = 10.0
"""Seconds of silence after which something is sent, to find out whether the client is still there."""
_COME_AGAIN = 1000
"""Milliseconds after which a client whose stream has ended should ask again."""

Look = Callable[[Record | None], tuple[Record, dict[str, Any]] | None]


class Events:
    """A stream of events, as an answer.

    Args:
        environ: the request's.
        record: what is known of the task.
        look: answers the record as it is now, and what the client may be told of it.
    """

    def __init__(self, environ: Mapping[str, Any], record: Record, look: Look) -> None:
        self._record = record
        self._look = look
        self._seen = environ.get("HTTP_LAST_EVENT_ID", "")
        self._may_hold = bool(environ.get("wsgi.multithread"))

    def send(self, environ: Mapping[str, Any], start_response: Any) -> Iterable[bytes]:
        """Give it as a WSGI application does."""
        headers = [("Cache-Control", "no-store"), ("Vary", "Accept")]
        found = self._look(self._record)
        if found is not None and self._record.state in model.ENDED and self._event(found[1])[0] == self._seen:
            # The client knows how it ended: this answer tells an EventSource not to ask again.
            start_response(line(204), headers)
            return []
        # The last header keeps nginx from collecting events until its buffer is full.
        start_response(line(200), [("Content-Type", EVENTS), *headers, ("X-Accel-Buffering", "no")])
        return [] if environ.get("REQUEST_METHOD") == "HEAD" else self._stream()

    def _stream(self) -> Iterator[bytes]:
        holds = self._may_hold and _HELD.acquire(blocking=False)
        try:
            yield b"retry: %d\n\n" % _COME_AGAIN
            yield from self._changes(time.monotonic() + (_LONGEST if holds else 0.0))
        except (ServerUnavailable, RecordsUnavailable):
            return  # the client asks again, and is told then
        finally:
            if holds:
                _HELD.release()

    def _changes(self, end: float) -> Iterator[bytes]:
        record: Record | None = self._record
        told_at = time.monotonic()
        while (found := self._look(record)) is not None:
            record, values = found
            event_id, event = self._event(values)
            now = time.monotonic()
            if event_id != self._seen:
                self._seen, told_at = event_id, now
                yield event
            elif now - told_at > _SIGN:
                told_at = now
                yield b": still here\n\n"
            if record.state in model.ENDED or now + _LOOK > end:
                return
            time.sleep(_LOOK)
            record = None

    @staticmethod
    def _event(values: Mapping[str, Any]) -> tuple[str, bytes]:
        """An event, and its id, which changes with each change of the status."""
        text = json.dumps(values)
        event_id = hashlib.blake2b(text.encode(), digest_size=6).hexdigest()
        return event_id, f"id: {event_id}\ndata: {text}\n\n".encode()
