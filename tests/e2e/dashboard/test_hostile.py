"""Text from anywhere, in every field that the dashboard shows: it stays text."""

import json
import random
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from gearwsgi.state.records.model import write_attempt
from tests.dashboards import bury, fail, make_row, open_store, put
from tests.e2e.dashboard.conftest import Place, pages

EVIL = "\"'><script>window.evil=1</script><img src=x onerror=window.evil=1>{{7*7}}\u202e\x1b[31m\x00`x`"
"""What would run, where it were not escaped; what turns lines around, moves a terminal's cursor, ends a string."""


def test_a_hostile_text_in_every_field_stays_text_on_every_page(
    make_place: Callable[..., Place], open_page: Callable[..., Any]
) -> None:
    place = make_place(tasks=5, dead=2, authorize=lambda environ: EVIL, app=EVIL)
    now = time.time()
    names = ("service", "method", "path", "queue", "priority", "reason", "host", "request_id", "traceparent", "owner")
    texts = dict.fromkeys(names, EVIL)
    row = make_row(random.Random(5), now - 20, 0, **texts, id="evil" + EVIL.replace("\x00", ""))
    history = write_attempt(1, now - 20, now - 19, "retried", host=EVIL, pid=1, status=1, reason=EVIL, traceback=EVIL)
    history += json.dumps({"event": EVIL, "at": now, "by": EVIL}) + "\n"
    clean = {name: value.replace("\x00", "") for name, value in texts.items()}
    rows = [
        replace(row, **clean, history=history), replace(row, **clean, id="<b>2", state="running", done=1, total=2),
        replace(row, **clean, id="<b>3", state="dead"),
    ]  # fmt: skip
    with open_store(place.shop.settings) as store:
        put(store, rows)
        about = {"app": EVIL, "version": EVIL, "stopping": False, "at": now, "host": EVIL, "pid": 7, "workers": [
            {"pid": 7, "state": EVIL, "job": EVIL, "id": EVIL, "service": EVIL, "attempt": 1, "age": 3.0, "done": 1,
             "memory": EVIL, "queues": [EVIL]}]}  # fmt: skip
        with store.database.transaction(write=True) as transaction:
            store.hear(transaction, "evil", now, about)
            store.keep_result(
                transaction, rows[0].id, now + 99, f"HTTP/1.1 200 {EVIL}\r\nX: {EVIL}\r\n\r\n{EVIL}".encode()
            )
        store.steering.pause("q" + EVIL.replace("\x00", ""), by=EVIL)
    letter = fail(make_row(random.Random(6), now - 30, 0), EVIL.replace("\x00", ""))
    bury(place.shop.settings, letter, body=EVIL.encode())
    with open_store(place.shop.settings) as store:
        put(store, [letter])
    place.shop.gearman.task("/search/index", queue="q<script>evil()</script>")

    page = open_page()
    ids = {**place.ids, "evil": rows[0].id, "evil run": "<b>2", "evil dead": "<b>3", "letter": letter.id}
    further = {
        "filter": "/tasks?service=" + quote(EVIL), "reason": "/dead?reason=" + quote(EVIL),
        "no": "/task?id=" + quote(EVIL),
        "bad": "/tasks?state=" + quote(EVIL), "ask": "/dead/ask?do=retry&service=" + quote(EVIL),
        "did": "/dead?did=" + quote(EVIL), "number": "/tasks?after=" + quote(EVIL),
    }  # fmt: skip
    shown = {}
    for name, path in {**pages(ids), **further}.items():
        page.goto(place.url + path)
        page.wait_for_timeout(20)
        assert page.evaluate("window.evil") is None, name
        assert page.locator("main script, main img, main b:has-text('2<b>')").count() == 0, name
        shown[name] = page.content()
        assert "\x1b" not in shown[name] and "\u202e" not in shown[name] and "49\\u202e" not in shown[name], name
    assert "&lt;script&gt;window.evil=1" in shown["task evil"] and "{{7*7}}" in shown["task evil"]
    assert not [problem for problem in page.problems if "status of 40" not in problem]
    assert not [problem for problem in page.problems if "Content Security Policy" in problem]
