"""What a message says of itself, at a glance: for who counts jobs, which must cost next to nothing. Pure.

Nothing is checked here: the message was read whole, and verified, by the worker process that ran it.
"""

import re

_LEAST = 128
"""Bytes before the service in any message that this package writes: request line, Host, User-Agent, two ids."""
_MOST = 128 * 1024
_search = re.compile(
    rb"X-Gearman-Service: ([!-~]++)\r\nX-Gearman-Attempt: \d++\r\nX-Gearman-Max-Attempts: \d++\r\n"
    rb"X-Gearman-Queued: (\d++\.\d++)\r\n(?:X-Gearman-(?:Remote-Addr: [^\r]*+\r\nX-Gearman-)?Due: (\d++\.\d++)\r)?"
).search


def glance(payload: bytes) -> tuple[bytes, float] | None:
    """The service that a message is for, and since when it waits, in Unix time: when it was queued, or was due later.

    None: its own fields are not as this package writes them nearly always.
    """
    found = _search(payload, _LEAST, _MOST)
    if found is None:
        return None
    service, queued, due = found.groups()
    return service, float(due or queued)
