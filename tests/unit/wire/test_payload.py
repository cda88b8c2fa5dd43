"""A payload sealed and opened."""

import time

import pytest

from gearwsgi.errors import BadMessage
from gearwsgi.message.model import Message
from gearwsgi.settings import read_settings
from gearwsgi.wire.payload import Grabbed, open_payload


def test_a_beginning_that_would_be_a_message_by_itself_does_not_run() -> None:
    payload = Message("POST").to_bytes()
    job = Grabbed(b"H:1", b"job", b"u", payload, cut=10**9)
    with pytest.raises(BadMessage, match="payload of 1000000000 bytes is over max_body=67108864"):
        open_payload(job, read_settings({"servers": "127.0.0.1:1"}, {}), time.time())
