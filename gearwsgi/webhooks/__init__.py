"""Verifiers for the setting `inbox`: each checks a webhook's signature, from its headers and its raw body.

    from gearwsgi.webhooks import github, standard

    inbox=[
        {"route": "POST /hooks/github", "verify": github("the secret")},
        {"route": "POST /hooks/mail", "verify": standard("whsec_…")},
    ]

Any callable may take their place: it is called with the environ and the body (bytes), and answers whether the delivery
is genuine, or raises `BadDelivery`, whose text is logged.
"""

import base64
import binascii
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

from ..errors import BadDelivery, ConfigError

Environ: TypeAlias = Mapping[str, Any]
Secrets: TypeAlias = str | bytes | Iterable[str | bytes]
"""A secret; or several, of which any may fit, while one is being replaced by another."""

TOLERANCE = 300
"""Seconds by which the time of a delivery may differ from ours."""


class Verifier:
    """Says whether a delivery is genuine: `verify(environ, body)` is true, or raises `BadDelivery`.

    Args:
        name: the name of the scheme.
        check: raises `BadDelivery` where the signature is wrong.
        id: a delivery's id, from its environ and body; empty where it has none.
    """

    __slots__ = ("_check", "_name", "id")

    def __init__(self, name: str, check: Callable[[Environ, bytes], None], id: Callable[[Environ, bytes], str]) -> None:
        self._name = name
        self._check = check
        self.id = id

    def __call__(self, environ: Environ, body: bytes) -> bool:
        self._check(environ, body)
        return True

    def __repr__(self) -> str:
        return f"<{self._name}>"  # without its secret


def standard(secret: Secrets, *, tolerance: float = TOLERANCE) -> Verifier:
    """Standard Webhooks, with headers that are called `webhook-…`, or `svix-…`.

    The delivery's id is the header `webhook-id`.

    Args:
        secret: as the sender shows it, `whsec_…`; or several.
        tolerance: seconds that the delivery's time may differ from ours.

    Raises:
        ConfigError: the secret can't be one.
    """
    keys = [_decoded(each) for each in _secrets("standard", secret)]

    def header(environ: Environ, name: str) -> str:
        return header_of(environ, f"webhook-{name}") or header_of(environ, f"svix-{name}")

    def check(environ: Environ, body: bytes) -> None:
        delivery, stamp, signatures = (header(environ, name) for name in ("id", "timestamp", "signature"))
        if not (delivery and stamp and signatures):
            raise BadDelivery("a header is missing: webhook-id, webhook-timestamp and webhook-signature are wanted")
        _check_time(stamp, tolerance)
        content = b".".join((_bytes(delivery), _bytes(stamp), body))
        given = [word.partition(",") for word in signatures.split()]
        claimed = [_bytes(value) for version, _, value in given if version == "v1"]
        _check_digests(claimed, [base64.b64encode(hmac.digest(key, content, "sha256")) for key in keys])

    return Verifier("standard", check, lambda environ, body: header(environ, "id"))


def github(secret: Secrets) -> Verifier:
    """GitHub, by `X-Hub-Signature-256`. The delivery's id is the header `X-GitHub-Delivery`.

    Args:
        secret: the webhook's; or several.

    Raises:
        ConfigError: the secret can't be one.
    """
    check = _header_check("github", "X-Hub-Signature-256", secret, "sha256", "sha256=")
    return Verifier("github", check, lambda environ, body: header_of(environ, "X-GitHub-Delivery"))


def stripe(secret: Secrets, tolerance: float = TOLERANCE) -> Verifier:
    """Stripe, by `Stripe-Signature`. The delivery's id is that of the event in its body.

    Args:
        secret: the endpoint's, `whsec_…`; or several.
        tolerance: seconds that the delivery's time may differ from ours.

    Raises:
        ConfigError: the secret can't be one.
    """
    keys = _secrets("stripe", secret)

    def check(environ: Environ, body: bytes) -> None:
        pairs = [item.strip().partition("=") for item in header_of(environ, "Stripe-Signature").split(",")]
        stamp = next((value for name, _, value in pairs if name == "t"), "")
        claimed = [_bytes(value) for name, _, value in pairs if name == "v1"]
        if not (stamp and claimed):
            raise BadDelivery("the header Stripe-Signature is missing, or has no t= and v1=")
        _check_time(stamp, tolerance)
        content = _bytes(stamp) + b"." + body
        _check_digests(claimed, [hmac.digest(key, content, "sha256").hex().encode() for key in keys])

    return Verifier("stripe", check, _id_in_body)


def hmac_header(header: str, secret: Secrets, algorithm: str = "sha256", prefix: str = "") -> Verifier:
    """An HMAC of the body, in hexadecimal digits, in a header: what many senders do.

    The delivery's id is a hash of its body, unless the inbox names a header, which is better: who sends the same body
    twice, and means two, is heard once.

    Args:
        header: its name.
        secret: what it is made with; or several.
        algorithm: `sha256`, `sha512`, `sha1`, …
        prefix: what stands before the digits, such as `sha256=`.

    Raises:
        ConfigError: the secret, or the algorithm, can't be one.
    """
    check = _header_check("hmac_header", header, secret, algorithm, prefix)
    return Verifier(f"hmac_header {header}", check, lambda environ, body: hashlib.sha256(body).hexdigest())


def header_of(environ: Environ, name: str) -> str:
    """The value of a request's header; empty where there is none."""
    key = name.upper().replace("-", "_")
    return str(environ.get(key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}", "")).strip()


def _header_check(
    scheme: str, header: str, secret: Secrets, algorithm: str, prefix: str
) -> Callable[[Environ, bytes], None]:
    keys = _secrets(scheme, secret)
    try:
        hmac.digest(keys[0], b"", algorithm)
    except (ValueError, TypeError):
        raise ConfigError(f"{scheme}: algorithm {algorithm!r} is not known here; 'sha256' is") from None

    def check(environ: Environ, body: bytes) -> None:
        value = header_of(environ, header)
        if not value:
            raise BadDelivery(f"the header {header} is missing")
        if not value.startswith(prefix):
            raise BadDelivery(f"the header {header} does not begin with {prefix!r}")
        claimed = _bytes(value[len(prefix) :].lower())
        _check_digests([claimed], [hmac.digest(key, body, algorithm).hex().encode() for key in keys])

    return check


def _check_digests(claimed: list[bytes], true: list[bytes]) -> None:
    """Raise unless some claimed digest is true. All are compared, and each comparison takes the same time."""
    if not any([hmac.compare_digest(one, other) for one in claimed for other in true]):
        raise BadDelivery("the signature does not fit: another secret, or the body was changed on its way")


def _check_time(stamp: str, tolerance: float) -> None:
    if not (stamp.isascii() and stamp.isdigit() and len(stamp) < 15):
        raise BadDelivery("its time can't be read")
    late = time.time() - int(stamp)
    if abs(late) > tolerance:
        when = f"{late:.0f} s old" if late > 0 else f"{-late:.0f} s ahead"
        raise BadDelivery(f"it is {when}, and {tolerance:g} s are allowed: is this machine's clock right?")


def _id_in_body(environ: Environ, body: bytes) -> str:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    value = found.get("id") if isinstance(found, dict) else None
    return value if isinstance(value, str) else ""


def _secrets(scheme: str, given: Secrets) -> list[bytes]:
    """The secrets, which no error shows. An empty one is refused: with it anybody could sign."""
    several = [given] if isinstance(given, str | bytes) else list(given) if isinstance(given, Iterable) else [None]
    keys = [each.encode() if isinstance(each, str) else each for each in several]
    if not keys or not all(isinstance(key, bytes) and key for key in keys):
        raise ConfigError(f"{scheme}: the secret is missing, or is no text: is its environment variable set?")
    return [key for key in keys if isinstance(key, bytes)]


def _decoded(key: bytes) -> bytes:
    """The key that a secret of Standard Webhooks stands for."""
    try:
        decoded = base64.b64decode(key.removeprefix(b"whsec_"), validate=True)
    except binascii.Error:
        decoded = b""
    if not decoded:
        raise ConfigError("standard: the secret is no base64 (whsec_… as the sender shows it)")
    return decoded


def _bytes(text: str) -> bytes:
    """The bytes of a header's value: in an environ each byte is a character."""
    return text.encode("latin-1", "replace")
