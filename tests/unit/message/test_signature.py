"""Signatures: what they cover, byte by byte, and which of them count."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gearwsgi.errors import BadSignature
from gearwsgi.message import reading, signature
from gearwsgi.message.model import Message
from gearwsgi.message.signature import is_signed, renew, sign, verify

KEY, NEWER, FOREIGN = b"k" * 16, b"n" * 32, b"f" * 16
NOW = 1_800_000_000.0
MESSAGE = Message(
    "POST", path="/pay?n=1", headers=[("Content-Type", "a/b"), ("Cookie", "s=1")], body=b"the body\r\n\r\n", id="1" * 32
).to_bytes()
SIGNED = sign(MESSAGE, "job", KEY, NOW)


def refused(data: bytes, queue: str = "job", keys: tuple[bytes, ...] = (KEY,), now: float = NOW) -> str:
    with pytest.raises(BadSignature, match="signature") as caught:
        verify(data, queue, keys, now)
    return str(caught.value)


def test_what_was_signed_verifies_and_reads_as_before() -> None:
    verify(SIGNED, "job", [KEY], NOW)
    assert reading.read(SIGNED) == reading.read(MESSAGE)


@given(st.binary(max_size=200), st.text(max_size=10), st.binary(min_size=16, max_size=40))
def test_whatever_bytes_are_signed_as_a_message_verify(body: bytes, queue: str, key: bytes) -> None:
    queue = queue.encode("utf-8", "replace").decode()
    data = sign(Message("POST", body=body).to_bytes(), queue, key, NOW)
    verify(data, queue, [key], NOW)


def test_one_flipped_bit_anywhere_in_a_signed_message_is_refused() -> None:
    start = SIGNED.index(b"X-Gearman-Signature")
    name = range(start, start + len(b"X-Gearman-Signature"))
    for place, bit in itertools.product(range(len(SIGNED)), (0x01, 0x20, 0x80)):
        changed = bytearray(SIGNED)
        changed[place] ^= bit
        # Only the case of the name of the signature's own line says nothing.
        if place in name and bytes(changed).lower() == SIGNED.lower():
            continue
        refused(bytes(changed))


@pytest.mark.parametrize("cut", [1, 5, 40, 100])
def test_a_signed_message_with_its_end_cut_off_is_refused(cut: int) -> None:
    refused(SIGNED[:-cut])


def test_a_signed_message_with_something_appended_is_refused() -> None:
    refused(SIGNED + b"x")


def test_a_header_added_removed_or_moved_is_refused() -> None:
    refused(SIGNED.replace(b"Cookie: s=1\r\n", b"Cookie: s=1\r\nX-Admin: 1\r\n"))
    refused(SIGNED.replace(b"Cookie: s=1\r\n", b""))
    refused(SIGNED.replace(b"Content-Type: a/b\r\nCookie: s=1\r\n", b"Cookie: s=1\r\nContent-Type: a/b\r\n"))


def test_a_signature_that_was_removed_is_refused() -> None:
    assert "no signature" in refused(MESSAGE)


@pytest.mark.parametrize("name", [b"X-Gearman-Signature", b"x-gearman-signature", b"X_Gearman_Signature"])
def test_a_doubled_signature_is_refused_in_any_spelling(name: bytes) -> None:
    line = SIGNED[SIGNED.index(b"X-Gearman-Signature") :].partition(b"\r\n")[0].partition(b":")[2]
    assert "twice" in refused(SIGNED.replace(b"\r\nCookie", b"\r\n" + name + b":" + line + b"\r\nCookie"))


def test_a_signature_in_another_spelling_of_its_name_is_the_same_signature() -> None:
    for name in (b"x-gearman-signature", b"X_GEARMAN_SIGNATURE"):
        verify(SIGNED.replace(b"X-Gearman-Signature", name), "job", [KEY], NOW)


@pytest.mark.parametrize(
    "value",
    [b"", b"x", b"t=1; v1=", b"t=1; v1=" + b"0" * 63, b"t=1; v1=" + b"0" * 65, b"t=1; v1=" + b"A" * 64,
     b"t=-1; v1=" + b"0" * 64, b"t=9999999999999; v1=" + b"0" * 64, b"t=\xb2; v1=" + b"0" * 64,
     b"v1=" + b"0" * 64, b"t=1; v0=" + b"0" * 64, b"t=1; v1=" + b"0" * 64 + b"; v1=" + b"0" * 64],
)  # fmt: skip
def test_a_signature_that_cant_be_read_is_refused(value: bytes) -> None:
    assert "can't be read" in refused(
        MESSAGE.replace(b"\r\nCookie", b"\r\nX-Gearman-Signature: " + value + b"\r\nCookie")
    )


def test_a_made_up_signature_is_refused() -> None:
    forged = b"X-Gearman-Signature: t=%d; v1=%s" % (NOW, b"0" * 64)
    assert "does not fit" in refused(MESSAGE.replace(b"\r\nCookie", b"\r\n" + forged + b"\r\nCookie"))


def test_another_key_is_refused() -> None:
    refused(sign(MESSAGE, "job", FOREIGN, NOW))
    refused(SIGNED, keys=(FOREIGN, NEWER))


def test_a_message_moved_to_another_queue_is_refused() -> None:
    refused(SIGNED, queue="admin")
    refused(SIGNED, queue="job\0")
    refused(SIGNED, queue="jo")


def test_a_changed_time_is_refused() -> None:
    refused(SIGNED.replace(b"t=1800000000", b"t=1800000001"))


def test_a_signature_that_is_too_old_is_refused_and_one_that_is_not_yet_is_not() -> None:
    verify(SIGNED, "job", [KEY], NOW + 100, max_age=100)
    with pytest.raises(BadSignature, match="101 s old, more than max_age=100"):
        verify(SIGNED, "job", [KEY], NOW + 101, max_age=100)
    refused(SIGNED, now=NOW + signature.DEFAULT_MAX_AGE + 1)


def test_a_delayed_message_is_as_old_as_the_time_since_it_was_due() -> None:
    delayed = sign(MESSAGE, "job", KEY, NOW + 30 * 86400)
    verify(delayed, "job", [KEY], NOW + 30 * 86400 + 5, max_age=10)


def test_rotation_a_new_key_signs_while_the_old_one_still_verifies() -> None:
    old, new = SIGNED, sign(MESSAGE, "job", NEWER, NOW)
    for data in (old, new):
        verify(data, "job", [KEY, NEWER], NOW)  # 1. workers learn the new key
        verify(data, "job", [NEWER, KEY], NOW)  # 2. all sign with it
    verify(new, "job", [NEWER], NOW)  # 3. the old one is taken away
    refused(old, keys=(NEWER,))


def test_signing_again_replaces_the_signature() -> None:
    again = sign(SIGNED, "mail", NEWER, NOW)
    assert again == sign(MESSAGE, "mail", NEWER, NOW)


def test_a_body_that_looks_like_a_signature_is_only_a_body() -> None:
    body = b"\r\nX-Gearman-Signature: t=1; v1=" + b"0" * 64
    data = sign(Message("POST", body=body).to_bytes(), "job", KEY, NOW)
    assert data.endswith(body)
    verify(data, "job", [KEY], NOW)
    assert not is_signed(Message("POST", body=b"\r\n" + body + b"\r\n\r\n").to_bytes())


def test_parts_cant_be_shifted_from_the_queue_into_the_time_or_the_head() -> None:
    digest = signature._digest
    assert digest(KEY, "a", b"1", b"x", b"y") != digest(KEY, "a\x001", b"", b"x", b"y")
    assert digest(KEY, "a", b"1", b"x", b"y") != digest(KEY, "a", b"1", b"x\r\n\r\ny", b"")


def test_renewing_never_signs_what_nobody_had_signed() -> None:
    """The way of a forged message through `dead retry` and the outbox: it must not come out signed."""
    forged = MESSAGE.replace(b"\r\nCookie", b"\r\nX-Gearman-Signature: t=1; v1=" + b"0" * 64 + b"\r\nCookie")
    for data in (MESSAGE, forged, sign(MESSAGE, "job", FOREIGN, NOW), SIGNED + b"x", b"{}", b"", b'{"service":"/x"}'):
        assert renew(data, "job", [KEY, NEWER], NOW) == data
    assert renew(SIGNED, "admin", [KEY], NOW) == SIGNED


def test_renewing_signs_anew_what_an_older_key_signed_long_ago() -> None:
    renewed = renew(SIGNED, "job", [NEWER, KEY], NOW + 10**8)
    assert renewed == sign(MESSAGE, "job", NEWER, NOW + 10**8)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "payload",
    [b"\r\nX-Gearman-Signature:" * 10**6, b"\r\nX-Gearman-Signature:" * 10**6 + b"\r\n\r\n", b"\r\n" * 10**7,
     b"A" * 10**7 + b"\r\n\r\n", b"\r\nX-Gearman-Signature" + b" " * 60_000 + b"\r\n\r\n"],
    ids=["a million signatures", "a million signatures and an end", "line ends", "a head of ten megabytes", "blanks"],
)  # fmt: skip
def test_a_head_without_end_is_refused_before_it_is_searched(payload: bytes) -> None:
    refused(payload)


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_or_left_alone(data: bytes) -> None:
    is_signed(data)
    refused(data)
    assert renew(data, "job", [KEY], NOW) == data
