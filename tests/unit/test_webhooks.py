"""Verifiers of webhooks: the schemes' own published examples, and what is refused."""

import base64
import hmac
import time
from collections.abc import Callable
from typing import Any

import pytest

from gearwsgi.errors import BadDelivery, ConfigError
from gearwsgi.webhooks import Verifier, github, hmac_header, standard, stripe

EVER = 10**10
"""A tolerance for examples that were published years ago."""
KEY = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
EXAMPLE = {
    "HTTP_WEBHOOK_ID": "msg_p5jXN8AQM9LWM0D4loKWxJek",
    "HTTP_WEBHOOK_TIMESTAMP": "1614265330",
    "HTTP_WEBHOOK_SIGNATURE": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
}
BODY = b'{"test": 2432232314}'
GITHUB = {
    "HTTP_X_HUB_SIGNATURE_256": "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
    "HTTP_X_GITHUB_DELIVERY": "72d3162e-cc78-11e3-81ab-4c9367dc0958",
}
SECRET = "It's a Secret to Everybody"


def stripe_header(body: bytes, secret: str, stamp: int, *more: str) -> dict[str, str]:
    signature = hmac.digest(secret.encode(), b"%d.%s" % (stamp, body), "sha256").hex()
    return {"HTTP_STRIPE_SIGNATURE": ",".join([f"t={stamp}", *more, f"v1={signature}", "v0=6ffbb59b2300aae63f27"])}


def standard_headers(body: bytes, stamp: Any, key: str = KEY, id: str = "msg_1") -> dict[str, str]:
    secret = base64.b64decode(key.removeprefix("whsec_"))
    digest = base64.b64encode(hmac.digest(secret, f"{id}.{stamp}.".encode() + body, "sha256")).decode()
    signature = f"v1a,AAAA v1,AAAA v1,{digest}"
    return {"HTTP_WEBHOOK_ID": id, "HTTP_WEBHOOK_TIMESTAMP": str(stamp), "HTTP_WEBHOOK_SIGNATURE": signature}


Delivery = tuple[Verifier, dict[str, str], bytes, str]


def published() -> Delivery:
    return standard(KEY, tolerance=EVER), EXAMPLE, BODY, EXAMPLE["HTTP_WEBHOOK_ID"]


def by_svix() -> Delivery:
    headers = {name.replace("WEBHOOK", "SVIX"): value for name, value in EXAMPLE.items()}
    return standard(KEY, tolerance=EVER), headers, BODY, EXAMPLE["HTTP_WEBHOOK_ID"]


def several_signatures() -> Delivery:
    return standard(KEY), standard_headers(b"\xff\0", now()), b"\xff\0", "msg_1"


def two_secrets() -> Delivery:
    return standard(["whsec_AAAA", KEY]), standard_headers(b"x", now()), b"x", "msg_1"


def github_published() -> Delivery:
    return github(SECRET), GITHUB, b"Hello, World!", GITHUB["HTTP_X_GITHUB_DELIVERY"]


def by_stripe() -> Delivery:
    body = b'{"id": "evt_1"}'
    return stripe("whsec_test"), stripe_header(body, "whsec_test", now()), body, "evt_1"


def by_stripe_twice() -> Delivery:
    return stripe("whsec_test"), stripe_header(b"[1]", "whsec_test", now(), "v1=" + "0" * 64), b"[1]", ""


def by_header() -> Delivery:
    headers = {"HTTP_X_SIGNATURE": "v=" + hmac.digest(b"s", b"body", "sha512").hex().upper()}
    hashed = "230d8358dc8e8890b4c58deeb62912ee2f20357ae92a5cc861b98e68fe31acb5"
    return hmac_header("X-Signature", "s", "sha512", "v="), headers, b"body", hashed


def now() -> int:
    return int(time.time())


ALL = (
    published, by_svix, several_signatures, two_secrets, github_published, by_stripe, by_stripe_twice, by_header,
)  # fmt: skip


@pytest.mark.parametrize("make", ALL)
def test_a_genuine_delivery_is_told_and_has_its_id_and_any_change_is_refused(make: Callable[[], Delivery]) -> None:
    verify, environ, body, wanted = make()
    assert verify(environ, body) is True
    assert verify.id(environ, body) == wanted
    for changed in (body + b" ", body[1:], b"", body.swapcase() + b"\0"):
        with pytest.raises(BadDelivery, match="does not fit"):
            verify(environ, changed)
    for key in environ.keys() - {"HTTP_X_GITHUB_DELIVERY"}:
        with pytest.raises(BadDelivery):
            verify({name: value for name, value in environ.items() if name != key}, body)
        with pytest.raises(BadDelivery):
            verify({**environ, key: environ[key][::-1] + "\xff"}, body)


@pytest.mark.parametrize(("late", "why"), [(400, "s old"), (-400, "s ahead"), (None, "can't be read")])
def test_a_delivery_of_another_time_is_refused_whoever_signed_it(late: int | None, why: str) -> None:
    stamp = "soon" if late is None else now() - late
    with pytest.raises(BadDelivery, match=why):
        standard(KEY)(standard_headers(b"x", stamp), b"x")
    if isinstance(stamp, int):
        with pytest.raises(BadDelivery, match=why):
            stripe("s")(stripe_header(b"x", "s", stamp), b"x")
        assert stripe("s", tolerance=500)(stripe_header(b"x", "s", stamp), b"x")


@pytest.mark.parametrize("make", [standard, github, stripe, lambda secret: hmac_header("X-Sig", secret)])
@pytest.mark.parametrize("secret", ["", b"", None, [], ["good enough", ""], 7])
def test_a_missing_secret_with_which_anybody_could_sign_is_an_error(make: Any, secret: Any) -> None:
    with pytest.raises(ConfigError, match="secret"):
        make(secret)


def test_what_cant_work_is_an_error_and_nothing_shows_a_secret() -> None:
    with pytest.raises(ConfigError, match="no base64"):
        standard("whsec_not base64!")
    with pytest.raises(ConfigError, match="algorithm 'sha257'"):
        hmac_header("X-Sig", "hush", "sha257")
    assert "hush" not in repr([github("hush"), hmac_header("X-Sig", "hush"), stripe("hush")])
