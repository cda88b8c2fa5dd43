"""Secrets in a message are not shown."""

import pytest

from gearwsgi.message.redact import is_secret, redact_lines, redact_payload


@pytest.mark.parametrize(
    "name",
    ["Authorization", "AUTHORIZATION", "cookie", "Set-Cookie", "set_cookie", "Proxy-Authorization", "X-CSRF",
     "x-csrf-x", "X_CSRFTOKEN", "X-XSRF-Token", "X-Gearman-Signature", "X-Api-Key", " Cookie", "Cookie ", "X-Mine"],
)  # fmt: skip
def test_a_secret_header_is_one_in_any_spelling(name: str) -> None:
    assert is_secret(name, ["x-mine"])


@pytest.mark.parametrize("name", ["Content-Type", "X-Cookie", "Cookies", "Host", ""])
def test_other_headers_are_shown(name: str) -> None:
    assert not is_secret(name, ["x-mine"])


@pytest.mark.parametrize(
    "payload",
    [
        b"POST /x HTTP/1.1\r\nCookie: hush\r\n\r\nbody",
        b"POST /x HTTP/1.1\r\nCookie:hush",
        b"POST /x HTTP/1.1\nCookie: hush\n\nbody",
        b"POST /x HTTP/1.1\rCookie: hush\r\rbody",
        b"Cookie: hush\r\nPOST /x HTTP/1.1\r\n\r\n",
        b"POST /x HTTP/1.1\r\nCookie : hush\r\n\r\n",
        b"POST /x HTTP/1.1\r\nCookie: a\r\n hush\r\n\thush\r\n\r\n",
        b"POST /x HTTP/1.1\r\nCookie: a\n hush\r\n\r\n",
        b"POST /x HTTP/1.1\r\nA: b\rCookie: hush\r\n\r\n",
        b"POST /x HTTP/1.1\r\ncOOKIE: a\x00hush\x1b\r\n\r\n",
        b"POST /x HTTP/1.1\r\nAuthorization: Basic hush:hush\r\nAuthorization: hush\r\n\r\n",
    ],
)
def test_a_secret_is_blotted_out_also_where_the_head_is_no_head(payload: bytes) -> None:
    assert b"hush" not in redact_payload(payload)
    assert b"[redacted]" in redact_payload(payload)


def test_a_body_is_shown_as_it_is() -> None:
    payload = b"POST /x HTTP/1.1\r\nA: b\r\n\r\nCookie: not a header"
    assert redact_payload(payload) == payload


def test_lines_of_a_response_are_blotted_out_one_by_one() -> None:
    lines = ["last response:", "HTTP/1.1 404 Not Found", "Set-Cookie: hush", "X-A: b", "", "text: \udcff"]
    assert redact_lines(lines)[2] == "Set-Cookie: [redacted]"
    assert [line for place, line in enumerate(redact_lines(lines)) if place != 2] == lines[:2] + lines[3:]


@pytest.mark.timeout(20)
@pytest.mark.parametrize("unit", [b"a", b"\r", b"\n", b":", b"\r\n ", b"a:\n", b" ", b"a" * 199 + b"\n"])
def test_redaction_takes_linear_time(unit: bytes) -> None:
    redact_payload(b"A:" + unit * (2**20 // len(unit)))


@pytest.mark.parametrize("name", [b"X-Gearman-Then", b"x_gearman_on-dead"])
def test_secrets_in_the_headers_of_a_follow_up_are_blotted_out(name: bytes) -> None:
    nested = b'{"service":"a","headers":[["Cookie","hush"],["X-A","b"]],"then":{"headers":[["Authorization","hush"]]}}'
    for value in (nested, b'{"headers": [["Cookie", "hush"'):
        shown = redact_payload(b"POST /x HTTP/1.1\r\n" + name + b": " + value + b"\r\n\r\n")
        assert b"hush" not in shown and b"[redacted]" in shown
    assert b'["X-A","b"]' in redact_payload(b"POST /x HTTP/1.1\r\n" + name + b": " + nested + b"\r\n\r\n")
