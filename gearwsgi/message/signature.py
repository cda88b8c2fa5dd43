"""Signatures of messages: HMAC-SHA-256 over the queue, the time and every byte of the message.

The signature is the head's last line, `X-Gearman-Signature: t=<seconds>; v1=<hex>`, so that what it covers is the
message without that line. Pure: the caller brings the clock.

Written by hand, with the standard library's `hmac`: libraries such as itsdangerous have a format of their own,
while a signed message is to stay HTTP that people and tools can read.
"""

import hmac
import re
from collections.abc import Sequence

from ..errors import BadSignature
from .fields import SIGNATURE, find_line
from .model import MAX_HEAD, MAX_OWN

_NAME = SIGNATURE.encode()
_LINE = find_line(SIGNATURE)
_VALUE = re.compile(rb" ?t=(\d{1,12}); v1=([0-9a-f]{64})")

DEFAULT_MAX_AGE = 7 * 24 * 3600.0
"""Seconds after which a signature is too old, unless `max_age` says otherwise."""


def sign(message: bytes, queue: str, key: bytes, now: float) -> bytes:
    """`message` with a signature for `queue` as its head's last line; an earlier one is replaced.

    Args:
        message: the HTTP request in bytes.
        queue: the queue (Gearman function) that it is going to.
        key: the secret.
        now: Unix time; for a delayed message the time when it is due.
    """
    head, end, body = message.partition(b"\r\n\r\n")
    head = _LINE.sub(b"", head)
    stamp = b"%d" % int(now)
    line = b"\r\n%s: t=%s; v1=%s" % (_NAME, stamp, _digest(key, queue, stamp, head, body).encode())
    return b"".join((head, line, end, body))


def is_signed(message: bytes) -> bool:
    """Whether the message has a signature, true or not."""
    return _LINE.search(message, 0, max(0, message.find(b"\r\n\r\n"))) is not None


def verify(message: bytes, queue: str, keys: Sequence[bytes], now: float, max_age: float = DEFAULT_MAX_AGE) -> None:
    """Return if one of `keys` signed exactly these bytes for this queue, at most `max_age` seconds ago.

    Raises:
        BadSignature: it did not; the text says which of these it was.
    """
    stamp = _check(message, queue, keys)
    if now - stamp > max_age:
        raise BadSignature(f"signature is {now - stamp:.0f} s old, more than max_age={max_age:.0f}")


def renew(message: bytes, queue: str, keys: Sequence[bytes], now: float) -> bytes:
    """`message` signed anew where one of `keys` has signed it, however long ago; anything else is returned as it is.

    For messages that have waited on disk. It never makes a signature good that nobody has checked.
    """
    try:
        _check(message, queue, keys)
    except BadSignature:
        return message
    return sign(message, queue, keys[0], now)


def _check(message: bytes, queue: str, keys: Sequence[bytes]) -> int:
    """The time of the signature, if one of `keys` made it.

    Raises:
        BadSignature: there is none, or no key made it.
    """
    if not 0 <= message.find(b"\r\n\r\n") <= MAX_HEAD + MAX_OWN:
        raise BadSignature("no signature: this is no message whose head could hold one")
    head, _, body = message.partition(b"\r\n\r\n")
    lines = list(_LINE.finditer(head))
    if not lines:
        raise BadSignature("no signature: this worker has secret_keys and runs only what they signed")
    if len(lines) > 1:
        raise BadSignature("signature given twice")
    value = _VALUE.fullmatch(lines[0][1])
    if value is None:
        raise BadSignature("signature can't be read")
    stamp, claimed = value[1], value[2].decode()
    head = head[: lines[0].start()] + head[lines[0].end() :]
    # All keys are tried, and each comparison takes the same time whatever the difference is.
    if not any([hmac.compare_digest(_digest(key, queue, stamp, head, body), claimed) for key in keys]):
        raise BadSignature(f"signature does not fit: changed, signed with another key, or not for queue {queue!r}")
    return int(stamp)


def _digest(key: bytes, queue: str, stamp: bytes, head: bytes, body: bytes) -> str:
    # No two messages give the same bytes: neither a queue nor a time has a NUL, and the head ends at the first empty
    # line.
    prefix = b"gearwsgi-v1\0%s\0%s\0" % (queue.encode("utf-8", "surrogateescape"), stamp)
    return hmac.digest(key, b"".join((prefix, head, b"\r\n\r\n", body)), "sha256").hex()
