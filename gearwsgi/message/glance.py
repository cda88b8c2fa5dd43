"""Reads from a message the little that counting jobs needs, at next to no cost. Pure.

Nothing is checked here: the message was read whole, and verified, by the worker process that ran it.
"""

import re

_LEAST = 128
"""Bytes before the service, at least, in a message of this package: request line, Host, User-Agent and two ids."""
_MOST = 128 * 1024
_search = re.compile(
    rb"X-Gearman-Service: ([!-~]++)\r\nX-Gearman-Attempt: \d++\r\nX-Gearman-Max-Attempts: \d++\r\n"
    rb"X-Gearman-Queued: (\d++\.\d++)\r\n(?:X-Gearman-(?:Remote-Addr: [^\r]*+\r\nX-Gearman-)?Due: (\d++\.\d++)\r)?"
).search


def glance(payload: bytes) -> tuple[bytes, float] | None:
    """The service that a message is for, and since when it waits, in Unix time: when it was queued, or due, if later.

    None: the message's own fields are not in the order in which this package usually writes them.
    """
    found = _search(payload, _LEAST, _MOST)
    if found is None:
        return None
    service, queued, due = found.groups()
    return service, float(due or queued)
