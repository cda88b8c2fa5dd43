"""The message's bytes: what is written is read back, WebOb reads the same, and what is hostile is refused."""

import io
import json
import tracemalloc
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from webob import Request

from gearwsgi.errors import BadMessage, InvalidTask, UnknownService
from gearwsgi.message import model, reading, targets
from gearwsgi.message import plain as plain_call
from gearwsgi.message.model import Message, write
from gearwsgi.message.plain import is_plain, read_plain
from gearwsgi.message.reading import read
from gearwsgi.message.targets import Service
from gearwsgi.settings import read_settings
from gearwsgi.submit.client import Client
from gearwsgi.submit.servers import Receipt
from gearwsgi.submit.tasks import Gearman

TOKEN = "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def http(*lines: bytes | str, first: bytes = b"POST http://example.com/x HTTP/1.1", body: bytes = b"") -> bytes:
    """A message with these header lines."""
    encoded = [line.encode() if isinstance(line, str) else line for line in lines]
    return b"\r\n".join([first, *encoded, b"", body])


def plain(payload: bytes, **options: Any) -> Message:
    return read_plain(payload, options.pop("tasks", {}), options.pop("resolver", None), id="id", **options)


def payload_of(given_task: dict[str, Any], environ: dict[str, Any] | None = None, **given: Any) -> bytes:
    """What `task()` with these arguments gives the job server."""
    sent: list[bytes] = []

    class Recorder(Client):
        def submit(self, submissions: Any) -> Any:
            sent.extend(each.payload for each in submissions)
            return [Receipt("H:1", "server") for _ in submissions]

    client = Recorder(read_settings({"servers": "127.0.0.1:1", **given}, {}))
    Gearman(client, environ).task(**{"service": "default.index", **given_task})
    return sent[0]


# -- what is written is read back -------------------------------------------------------------------------------------

tokens = st.text(TOKEN, min_size=1, max_size=20)
foreign = tokens.filter(
    lambda name: (
        name.lower().replace("_", "-") not in ("content-length", "transfer-encoding", "host")
        and not name.lower().replace("_", "-").startswith("x-gearman-")
    )
)
values = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=40).map(
    lambda value: value.strip(" \t")
)
texts = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=30).map(str.strip)
paths = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="#?"), max_size=30)
seconds = st.floats(0.001, 10**9, allow_nan=False)
messages = st.builds(
    Message,
    method=tokens,
    scheme=st.sampled_from(["http", "https"]),
    host=st.sampled_from(["localhost", "example.com", "example.com:8080", "[::1]:80", "[::1]", "a.b-c_d:0"]),
    script_name=st.sampled_from(["", "/app", "/a/b%20c"]),
    path=paths.map(lambda path: "/" + path),
    headers=st.lists(st.tuples(foreign, values), max_size=6).map(tuple),
    body=st.binary(max_size=100),
    has_length=st.just(True),
    id=texts,
    service=texts.filter(bool),
    attempt=st.integers(1, 10**6),
    max_attempts=st.none() | st.integers(1, 10**6),
    timeout=st.none() | seconds,
    backoff=st.none() | st.tuples(seconds, seconds),
    priority=st.sampled_from(model.PRIORITIES),
    wants_reply=st.booleans(),
    remote_addr=st.sampled_from(["", "127.0.0.1", "::1"]),
    remote_user=st.none() | values,
    cursor=st.sampled_from(["", "null", '{"row":"\\u00e9"}', '"' + "x" * 4094 + '"']),
    continued=st.integers(0, 10**6),
    progress=st.none() | st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)),
    failures=st.lists(texts.map(model.one_line).filter(bool), max_size=3).map(tuple),
)


@given(messages)
def test_what_is_written_is_read_back(given_message: Message) -> None:
    found = read(given_message.to_bytes())
    for name in ("timeout", "backoff"):
        assert getattr(found, name) == pytest.approx(getattr(given_message, name), abs=1e-6)
        setattr(found, name, getattr(given_message, name))
    assert found == given_message


def usual_head(headers: list[tuple[str, str]], body: bytes) -> bytes:
    """A message as `task()` makes it: nothing in it but what nearly every message has."""
    headers = [("User-Agent", "gearwsgi/1"), *headers]
    made = Message("POST", "http", "a.b:80", "", "/job/1", headers, body, bool(body), "f" * 32, "job.1")
    made.max_attempts, made.remote_addr = 11, "127.0.0.1"
    return made.to_bytes()


@pytest.mark.parametrize("headers", [[], [("Accept-Language", "en, de")], [("X-A", "a: b"), ("X-A", "c")]])
@pytest.mark.parametrize("body", [b"", b'{"n":1}'])
def test_the_usual_head_is_read_as_any_other(
    headers: list[tuple[str, str]], body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each part of a head replaced by each of these, at each place where it stands."""
    whole = usual_head(headers, body)
    old = [
        b"\r\n",
        b": ",
        b":",
        b"-",
        b" ",
        b"1",
        b"/",
        b"Host",
        b"Content-Length",
        b"X-Gearman-",
        b"User-Agent",
        b"en",
    ]
    new = [b"", b" ", b"\t", b"\n", b"\0", b"_", b":", b"0", b"#", b":  ", b" \r\n", b"\r\n\r\n", b"\x85", b"\xff"]
    new += [b"\r\n%s: 3\r\n" % name for name in (b"host", b"content-length", b"X_gearman-B", b"Transfer_Encoding")]
    changed = {whole}
    for part in old:
        pieces = whole.split(part)
        for cut in range(1, len(pieces)):
            changed |= {part.join(pieces[:cut]) + instead + part.join(pieces[cut:]) for instead in new}
    usual = [outcome(payload) for payload in sorted(changed)]
    monkeypatch.setattr(reading, "_read_usual", lambda text, body: None)
    assert usual == [outcome(payload) for payload in sorted(changed)]


def outcome(payload: bytes) -> Message | str:
    try:
        return read(payload)
    except BadMessage as error:
        return str(error)


@pytest.mark.parametrize("keys", [[], ["k" * 16]])
@pytest.mark.parametrize("environ", [None, {"HTTP_HOST": "a.example", "REMOTE_ADDR": "::1", "HTTP_TRACEPARENT": "7"}])
@pytest.mark.parametrize(
    "given_task", [{"data": {"n": 1}}, {"method": "GET"}, {"form": {"a": "b"}, "headers": {"X": "y"}}]
)
def test_what_a_task_writes_has_the_usual_head(
    keys: list[str], environ: dict[str, Any] | None, given_task: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    payload = payload_of(given_task, environ, secret_keys=keys)
    monkeypatch.setattr(reading, "_read_lines", None)
    assert read(payload).service == "default.index"


@given(messages)
def test_webob_reads_what_we_write_as_we_do(given_message: Message) -> None:
    # WebOb takes a head for UTF-8, which it does not write either; headers beyond ASCII are ours to read.
    given_message.headers = tuple(pair for pair in given_message.headers if pair[1].isascii())
    given_message.remote_user = None
    found = Request.from_bytes(given_message.to_bytes())
    for name, value in given_message.headers:
        assert value in found.headers[name]
    assert found.method == given_message.method.upper()  # which is WebOb's way; ours keeps the case
    assert found.host == given_message.host
    assert found.body == given_message.body
    assert found.environ["wsgi.url_scheme"] == given_message.scheme or found.scheme == given_message.scheme


@pytest.mark.parametrize(
    ("blank", "given_task"),
    [
        ({"path": "/mail/send", "method": "POST"}, {"service": "mail.send"}),
        ({"path": "/mail/send?a=1&b=%20x", "method": "PUT"}, {"service": "PUT /mail/send?a=1&b=%20x"}),
        ({"path": "/a//b%2Fc/./d", "method": "POST"}, {"service": "/a//b%2Fc/./d"}),
        ({"path": "/caf%C3%A9", "method": "POST"}, {"service": "/café"}),
        ({"path": "/x?q=1", "method": "GET"}, {"service": "GET /x", "data": {"q": 1}}),
        (
            {"path": "/x", "method": "POST", "body": b'{"a":1}', "content_type": "application/json"},
            {"service": "/x", "data": {"a": 1}},
        ),
        (
            {"path": "/x", "method": "POST", "body": b"a=1&a=2", "content_type": "application/x-www-form-urlencoded"},
            {"service": "/x", "form": {"a": [1, 2]}},
        ),
        (
            {"path": "/x", "method": "POST", "body": bytes(range(256)), "content_type": "image/png"},
            {"service": "/x", "body": bytes(range(256)), "content_type": "image/png"},
        ),
        (
            {"path": "/x", "method": "POST", "headers": {"X-Some": "a, b; c", "Accept": "a/b"}},
            {"service": "/x", "headers": {"X-Some": "a, b; c", "Accept": "a/b"}},
        ),
    ],
)
def test_a_task_is_the_request_that_webob_would_have_made(blank: dict[str, Any], given_task: dict[str, Any]) -> None:
    payload = payload_of(given_task)
    found, wanted = Request.from_bytes(payload), Request.blank(**blank)
    # Since 1.8.9 WebOb's reader keeps an absolute target's scheme and host in the path; ours takes them off.
    assert unquote(found.path_qs.removeprefix("http://localhost")) == unquote(wanted.path_qs)
    assert (found.method, found.host.partition(":")[0]) == (wanted.method, "localhost")
    assert found.body == wanted.body
    assert (found.content_type or "") == (wanted.content_type or "")
    for name, value in blank.get("headers", {}).items():
        assert found.headers[name] == value
    ours = read(payload)
    assert (ours.method, unquote(ours.path), ours.body) == (wanted.method, unquote(wanted.path_qs), wanted.body)


# -- whatever comes, it is a message or a BadMessage ------------------------------------------------------------------

lines = st.one_of(
    st.binary(max_size=60),
    st.tuples(tokens.map(str.encode), st.sampled_from([b": ", b":", b" :", b""]), st.binary(max_size=20)).map(b"".join),
    st.tuples(
        st.sampled_from(
            ["Task", "Attempt", "Max-Attempts", "Timeout", "Backoff", "Priority", "Reply", "Script-Name", "Service",
             "Remote-Addr", "Remote-User", "Failed", "Signature"]
        ),
        st.one_of(st.binary(max_size=20), st.from_regex(rb"\d{1,12}(\.\d{1,12})?( \d{1,9})?", fullmatch=True)),
    ).map(lambda pair: b"X-Gearman-" + pair[0].encode() + b": " + pair[1]),
    st.sampled_from([b"Content-Length: 0", b"Host: a", b"Host: [::1]:80", b"Transfer-Encoding: chunked", b" folded"]),
)  # fmt: skip
first_lines = st.one_of(
    st.binary(max_size=60),
    st.sampled_from([b"POST /x HTTP/1.1", b"GET http://h HTTP/1.0", b"PUT https://h:1?a HTTP/1.1", b"A //b HTTP/1.1"]),
)
hostile = st.one_of(
    st.binary(max_size=300),
    st.builds(
        lambda first, head, body: b"\r\n".join([first, *head, b"", body]),
        first_lines,
        st.lists(lines, max_size=8),
        st.just(b"") | st.binary(max_size=10),
    ),
)


@settings(max_examples=500)
@given(hostile)
def test_any_bytes_are_a_message_that_can_be_written_again_or_a_bad_message(payload: bytes) -> None:
    try:
        found = read(payload)
    except BadMessage:
        return
    found.data()
    again = read(found.to_bytes())
    assert read(again.to_bytes()) == again
    assert (again.id, again.service, again.headers, again.body) == (found.id, found.service, found.headers, found.body)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=5), inner, max_size=3), max_leaves=8
)  # fmt: skip


@given(
    st.one_of(st.text(), st.sampled_from(["default.index", "/x", "GET /x", "a b", "/\ud800", "\r\n", "GET /x?\x00"])),
    st.dictionaries(st.text(max_size=8), json_values, max_size=4),
)
def test_any_plain_call_is_a_message_that_can_be_written_again_or_a_bad_message(
    name: str, data: dict[str, Any]
) -> None:
    payload = json.dumps({**data, "service": name}).encode()
    try:
        found = plain(payload)
    except BadMessage as error:
        str(error).encode()  # it can be logged
        return
    assert read(found.to_bytes()).body == found.body


@given(st.binary(max_size=100).map(lambda data: b"{" + data))
def test_any_bytes_after_a_brace_are_a_plain_call_or_a_bad_message(payload: bytes) -> None:
    try:
        plain(payload)
    except BadMessage:
        return


# -- attacks on the parser --------------------------------------------------------------------------------------------

REFUSED = {
    "nothing at all": b"",
    "no empty line ends the head": b"POST /x HTTP/1.1\r\nA: b",
    "a head that ends with bare LFs": b"POST /x HTTP/1.1\nA: b\n\n",
    "no HTTP version": http(first=b"POST /x"),
    "HTTP 2": http(first=b"POST /x HTTP/2"),
    "HTTP 0.9": http(first=b"GET /x HTTP/0.9"),
    "a version in lower case": http(first=b"POST /x http/1.1"),
    "two blanks in the request line": http(first=b"POST  /x HTTP/1.1"),
    "a blank before the request line": http(first=b" POST /x HTTP/1.1"),
    "an empty line before the request line": b"\r\n" + http(),
    "a tab in the request line": http(first=b"POST\t/x HTTP/1.1"),
    "a method that is no token": http(first=b"PO(ST /x HTTP/1.1"),
    "no method": http(first=b" /x HTTP/1.1"),
    "a blank in the target": http(first=b"POST /a b HTTP/1.1"),
    "a raw byte in the target": http(first=b"POST /\xff HTTP/1.1"),
    "a NUL in the target": http(first=b"POST /\x00 HTTP/1.1"),
    "a fragment": http(first=b"POST /x#y HTTP/1.1"),
    "a target of another scheme": http(first=b"POST file:///etc/passwd HTTP/1.1"),
    "a target that is a star": http(first=b"OPTIONS * HTTP/1.1"),
    "a target that is an authority": http(first=b"CONNECT host:80 HTTP/1.1"),
    "user and password in the target": http(first=b"POST http://user:pw@host/x HTTP/1.1"),
    "a backslash in the host": http(first=b"POST http://a\\b/x HTTP/1.1"),
    "no host in an absolute target": http(first=b"POST http:///x HTTP/1.1"),
    "a host with two colons": http(first=b"POST http://a:b:c/x HTTP/1.1"),
    "a host of brackets only": http(first=b"POST http://[]/x HTTP/1.1"),
    "a port with letters": http("Host: a:b", first=b"POST /x HTTP/1.1"),
    "a host of a kilobyte": http("Host: " + "a" * 1024, first=b"POST /x HTTP/1.1"),
    "Host twice": http("Host: a", "Host: a"),
    "Host twice, the first one empty": http("Host:", "Host: a"),
    "a blank before the colon": http("A : b"),
    "a blank in a header's name": http("A B: c"),
    "no name": http(": b"),
    "no colon": http("A"),
    "a name of other bytes": http(b"\xc3\xa9: b"),
    "CR in a value": http(b"A: b\rc"),
    "LF in a value": http(b"A: b\nC: d"),
    "NUL in a value": http(b"A: b\x00c"),
    "DEL in a value": http(b"A: b\x7fc"),
    "an escape in a value": http(b"A: \x1b[2J"),
    "a folded line": http("A: b", " c"),
    "a line folded by a tab": http("A: b", "\tc"),
    "Transfer-Encoding": http("Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    "Transfer_Encoding": http("Transfer_Encoding: chunked"),
    "Transfer-Encoding beside Content-Length": http("Content-Length: 0", "TRANSFER-ENCODING: identity"),
    "no Content-Length": http(body=b"x"),
    "a Content-Length that is too short": http("Content-Length: 1", body=b"xy"),
    "a Content-Length that is too long": http("Content-Length: 3", body=b"xy"),
    "a negative Content-Length": http("Content-Length: -1", body=b""),
    "a signed Content-Length": http("Content-Length: +2", body=b"xy"),
    "a hexadecimal Content-Length": http("Content-Length: 0x2", body=b"xy"),
    "a Content-Length with an underscore": http("Content-Length: 1_0", body=b"0123456789"),
    "a Content-Length in other digits": http("Content-Length: ²".encode("latin-1"), body=b"xy"),
    "an empty Content-Length": http("Content-Length:", body=b""),
    "a Content-Length of a million digits": http("Content-Length: " + "1" * 60_000),
    "Content-Length twice": http("Content-Length: 2", "Content-Length: 2", body=b"xy"),
    "Content-Length twice, once with an underscore": http("Content-Length: 2", "Content_Length: 2", body=b"xy"),
    "a list of Content-Lengths": http("Content-Length: 2, 2", body=b"xy"),
    "201 headers": http(*[f"A{n}: b" for n in range(201)]),
    "a head over 64 KB": http("A: " + "b" * 65_536),
    "own fields over 16 KB": http("X-Gearman-Task: " + "b" * 16_400),
    "a megabyte of one header": http(b"A: " + b"b" * 1_000_000),
    "a head of a million lines": http(*["A: b"] * 100_000),
    "an own field twice": http("X-Gearman-Task: a", "X-Gearman-Task: b"),
    "an own field twice, once with underscores": http("X-Gearman-Task: a", "X_Gearman_Task: b"),
    "the signature twice in two spellings": http("X-Gearman-Signature: a", "x-gearman_signature: b"),
    "attempt 0": http("X-Gearman-Attempt: 0"),
    "attempt -1": http("X-Gearman-Attempt: -1"),
    "an attempt that is no number": http("X-Gearman-Attempt: x"),
    "an attempt of a thousand digits": http("X-Gearman-Attempt: " + "9" * 1000),
    "max-attempts 0": http("X-Gearman-Max-Attempts: 0"),
    "max-attempts 1e9": http("X-Gearman-Max-Attempts: 1e9"),
    "a time-out of 0, which would switch the timer off": http("X-Gearman-Timeout: 0"),
    "a time-out of 0.0": http("X-Gearman-Timeout: 0.000"),
    "a time-out of inf": http("X-Gearman-Timeout: inf"),
    "a time-out of nan": http("X-Gearman-Timeout: nan"),
    "a time-out of 1e300": http("X-Gearman-Timeout: 1e300"),
    "a time-out that no timer can be set to": http("X-Gearman-Timeout: 9999999999"),
    "a negative time-out": http("X-Gearman-Timeout: -1"),
    "a backoff of one number": http("X-Gearman-Backoff: 5"),
    "a backoff of three numbers": http("X-Gearman-Backoff: 5 6 7"),
    "a backoff of two and a word": http("X-Gearman-Backoff: 5 6 x"),
    "a backoff of inf": http("X-Gearman-Backoff: 1 inf"),
    "a priority that is not known": http("X-Gearman-Priority: urgent"),
    "a reply that is not known": http("X-Gearman-Reply: socket"),
    "a script name with a blank": http("X-Gearman-Script-Name: /a HTTP/1.1"),
    "a script name that moves the host": http("X-Gearman-Script-Name: @evil.example"),
    "a script name with a query": http("X-Gearman-Script-Name: /a?b"),
}


@pytest.mark.parametrize("payload", REFUSED.values(), ids=REFUSED.keys())
def test_what_is_not_exactly_a_message_is_refused(payload: bytes) -> None:
    with pytest.raises(BadMessage) as caught:
        read(payload)
    assert len(str(caught.value)) < 1000


REFUSED_PLAIN = {
    "no JSON": b"{",
    "a list after it": b'{"service":"/x"}[]',
    "two of them": b'{"service":"/x"}{"service":"/x"}',
    "no service": b'{"a":1}',
    "a service that is null": b'{"service":null}',
    "a service that is a list": b'{"service":["/x"]}',
    "an empty service": b'{"service":""}',
    "a URL as the service": b'{"service":"http://example.com/x"}',
    "a service twice": b'{"service":"/x","service":"/y"}',
    "a key twice, deep inside": b'{"service":"/x","a":[{"b":1,"b":2}]}',
    "CR LF in the service": b'{"service":"/x\\r\\nA: b"}',
    "NUL in the service": b'{"service":"/x\\u0000"}',
    "a fragment in the service": b'{"service":"/x#y"}',
    "half of a surrogate pair in the service": b'{"service":"/x\\ud800"}',
    "half of a surrogate pair in an unknown service": b'{"service":"\\ud800"}',
    "half of a surrogate pair in a query": b'{"service":"GET /x","a":"\\udfff"}',
    "half of a surrogate pair in a query's key": b'{"service":"GET /x","\\udfff":1}',
    "nested data in a query": b'{"service":"GET /x","a":{"b":1}}',
    "NaN": b'{"service":"/x","a":NaN}',
    "Infinity": b'{"service":"/x","a":-Infinity}',
    "a number over what a float holds": b'{"service":"/x","a":1e999}',
    "a number of five thousand digits": b'{"service":"/x","a":' + b"9" * 5000 + b"}",
    "lists 101 deep": b'{"service":"/x","a":' + b"[" * 101 + b"]" * 101 + b"}",
    "lists a million deep": b'{"service":"/x","a":' + b"[" * 10**6,
    "dicts a million deep": b'{"service":"/x","a":' + b'{"a":' * 10**5,
    "bytes that are no UTF-8": b'{"service":"/x","a":"\xff"}',
    "UTF-16": '{"service":"/x"}'.encode("utf-16-le"),
    "two million values": b'{"service":"/x","a":[' + b"0," * 2 * 10**6 + b"0]}",
    "a million empty dicts": b'{"service":"/x","a":[' + b"{}," * 10**6 + b"0]}",
    "a service of two megabytes": b'{"service":"' + b"a." * 2**20 + b'"}',
    "a query of a megabyte": b'{"service":"GET /x","a":"' + b"a" * 2**20 + b'"}',
}


@pytest.mark.parametrize("payload", REFUSED_PLAIN.values(), ids=REFUSED_PLAIN.keys())
def test_what_is_not_exactly_a_plain_call_is_refused(payload: bytes) -> None:
    with pytest.raises(BadMessage) as caught:
        plain(payload, tasks={"alias": Service("/aliased")})
    assert len(str(caught.value)) < 1000


def test_data_with_half_a_surrogate_pair_stays_ascii_in_the_body() -> None:
    found = plain(b'{"service":"/x","a":"\\ud800"}')
    assert found.body == b'{"a":"\\ud800"}'
    assert read(found.to_bytes()).data() == {"a": "\ud800"}


def raising(name: str) -> str:
    raise KeyError(name)


@pytest.mark.parametrize("resolver", [raising, lambda name: 5, lambda name: "no target", lambda name: None])
def test_a_resolver_that_a_strangers_name_breaks_refuses_the_name(resolver: Any) -> None:
    with pytest.raises(BadMessage, match="unknown service"):
        plain(b'{"service":"a.b"}', resolver=resolver)


def test_a_resolver_never_sees_a_name_that_would_end_a_header_line() -> None:
    with pytest.raises(BadMessage, match="control character"):
        plain(b'{"service":"a\\r\\nX-Gearman-Attempt: 9"}', resolver=lambda name: "/found")


def test_a_wrong_service_of_megabytes_is_not_compared_with_each_alias() -> None:
    with pytest.raises(UnknownService) as caught:
        targets.resolve("a" * 10**7, {"alias": Service("/x")}, None)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("tail", [b"\0", b"\n", b"\r\n", b""])
def test_one_nul_or_newline_after_a_plain_call_is_forgiven(tail: bytes) -> None:
    assert plain(b'{"service":"default.index","n":1}' + tail).path == "/default/index"


@pytest.mark.parametrize(
    "line",
    [b"Authorization: Bearer hush\x01", b"Cookie: s=hush\x00", b"Set-Cookie : hush", b"Proxy-Authorization hush"],
)
def test_a_header_that_cant_be_read_does_not_show_its_value_in_the_reason(line: bytes) -> None:
    with pytest.raises(BadMessage) as caught:
        read(http(line))
    assert "hush" not in str(caught.value)


def test_a_header_in_the_place_of_the_request_line_does_not_show_its_value_in_the_reason() -> None:
    with pytest.raises(BadMessage) as caught:
        read(http(first=b"Authorization: Bearer hush"))
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("value", ["hush\n", "hush\x00", "hush…"])
def test_a_header_that_cant_be_written_does_not_show_its_value_in_the_error(value: str) -> None:
    with pytest.raises(InvalidTask) as caught:
        model.check_headers({"Authorization": value})
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [("Content-Length", "1"), ("content_length", "1"), ("Transfer-Encoding", "chunked"), ("X-Gearman-Task", "a"),
     ("x_gearman_signature", "a"), ("X-GEARMAN-ATTEMPT", "1"), ("A B", "c"), ("A:", "c"), ("", "c"), ("A\r\nB", "c"),
     ("é", "c"), ("A", "b\r\nC: d"), ("A", "b\nC: d"), ("A", "b\0")],
)  # fmt: skip
def test_a_header_that_a_caller_may_not_set_is_refused(name: str, value: str) -> None:
    with pytest.raises(InvalidTask):
        model.check_headers([(name, value)])


# -- what is taken ----------------------------------------------------------------------------------------------------


def test_200_headers_and_a_head_of_64_kilobytes_are_taken() -> None:
    lines = [f"A{n}: b" for n in range(199)]
    size = len(http(*lines)) - 4
    payload = http(*lines, "C: " + "d" * (model.MAX_HEAD - size - 5))
    assert len(payload) - 4 == model.MAX_HEAD
    assert len(read(payload).headers) == 200


def test_a_retry_of_a_message_with_the_longest_head_can_still_be_read() -> None:
    found = read(http("C: " + "d" * (model.MAX_HEAD - 100)))
    found.failures = ("wide characters: " + "你" * 180,) * 20
    found.attempt, found.max_attempts, found.id = 2, 5, "0" * 32
    assert len(read(found.to_bytes()).failures) == model.MAX_FAILURES


@pytest.mark.parametrize("name", ["X-Gearman-Task", "x-gearman-task", "X_Gearman_Task", "X-GEARMAN_TASK"])
def test_own_fields_are_known_in_any_spelling_and_never_reach_the_application(name: str) -> None:
    found = read(http(f"{name}: abc"))
    assert (found.id, found.headers) == ("abc", ())


@pytest.mark.parametrize(
    "value", ["你好", "é", "../../etc/passwd", "/etc/passwd", "a:b c", "-", ".", "%00", "\u2028", "x" * 10_000]
)
def test_an_id_of_any_bytes_survives_a_retry(value: str) -> None:
    found = read(http(f"X-Gearman-Task: {value}"))
    assert found.id == value
    assert read(found.to_bytes()).id == value


def test_an_id_that_is_no_utf8_is_the_same_from_the_second_time_on() -> None:
    found = read(http(b"X-Gearman-Task: \xff\xfe"))
    assert read(found.to_bytes()).id == found.id


@pytest.mark.parametrize("timeout", [0.001, 0.5, 123456.7, 2_000_000.0, 1e-5, 999_999_999.0])
def test_a_timeout_is_written_without_an_exponent(timeout: float) -> None:
    assert read(Message("POST", timeout=timeout, backoff=(timeout, timeout)).to_bytes()).timeout == timeout


@pytest.mark.parametrize(
    ("host", "fine"),
    [("[::1]:80", True), ("example.com:8080", True), ("a", True), ("127.0.0.1", True), ("a:b:c", False), ("", False),
     ("a b", False), ("a/b", False), ("a@b", False), ("a#b", False), ("a\r\nb", False), ("[::1", False), ("é", False),
     ("a" * 301, False)],
)  # fmt: skip
def test_a_host_that_a_client_chose_stands_in_a_request_line_only_where_it_can(host: str, fine: bool) -> None:
    assert model.safe_host(host) is fine


# -- time and memory --------------------------------------------------------------------------------------------------

SLOW = {
    "blanks before a control character": http(b"A:" + b" " * 60_000 + b"\x01"),
    "tabs and blanks in turn": http(b"A:" + b" \t" * 30_000 + b"\x01"),
    "a header's name without end": http(b"A" * 60_000),
    "colons": http(b":" * 60_000),
    "a target of one kind": http(first=b"POST http://" + b"a" * 60_000 + b" HTTP/1.1"),
    "a target of colons": http(first=b"POST http://" + b"a:" * 30_000 + b"/ HTTP/1.1"),
    "CRs": b"POST /x HTTP/1.1" + b"\r" * 10**6,
    "LFs": b"POST /x HTTP/1.1" + b"\n" * 10**6,
    "16 MB without an end": b"A" * 16 * 2**20,
    "16 MB of signatures": http(b"X-Gearman-Signature: t=1; v1=" + b"0" * 64).rstrip() * 150_000,
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("payload", SLOW.values(), ids=SLOW.keys())
def test_no_payload_takes_more_than_linear_time(payload: bytes) -> None:
    # The quadratic ones took minutes; the test's time-out is the bar.
    with pytest.raises(BadMessage):
        read(payload)


def peak(work: Any) -> float:
    """Megabytes that `work` allocates at most."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1] / 2**20
    finally:
        tracemalloc.stop()


def refuse(payload: bytes) -> None:
    with pytest.raises(BadMessage):
        (plain if is_plain(payload) else read)(payload)


def test_the_largest_body_is_read_with_one_copy_of_it() -> None:
    payload = http(f"Content-Length: {model.MAX_BODY}", body=bytes(model.MAX_BODY))
    assert peak(lambda: read(payload)) < 1.2 * model.MAX_BODY / 2**20


def test_a_body_over_max_body_is_refused() -> None:
    with pytest.raises(BadMessage, match="max_body=10"):
        read(http("Content-Length: 11", body=bytes(11)), max_body=10)
    with pytest.raises(BadMessage, match="max_body=10"):
        plain(b'{"service":"/x"}', max_body=10)


@pytest.mark.parametrize("value", [b"[],", b"{},", b"0,", b'"",', b'{"":0},'])
def test_json_that_is_small_as_text_and_large_in_memory_is_refused_first(value: bytes) -> None:
    payload = b'{"service":"/x","a":[' + value * (16 * 2**20 // len(value)) + b"0]}"
    assert peak(lambda: refuse(payload)) < 1


def test_the_largest_plain_call_that_is_taken_stays_in_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_call, "MAX_VALUES", plain_call.MAX_VALUES // 10)
    payload = b'{"service":"/x","a":[' + b"[]," * (plain_call.MAX_VALUES // 2 - 10) + b"0]}"
    assert peak(lambda: plain(payload)) < 30  # a tenth of it all


def test_read_then_written_then_read_by_webob_gives_the_body_untouched() -> None:
    body = bytes(range(256)) * 4
    again = Request.from_file(io.BytesIO(write(read(http(f"Content-Length: {len(body)}", body=body)), ())))
    assert again.body == body
