"""What waits, one by one, and how much of it is ready and later, on both kinds of job server."""

import json
import time

from gearwsgi.address import parse_address
from gearwsgi.state.records.rows import QUEUED, place
from gearwsgi.state.waiting import list_waiting
from gearwsgi.wire.connection import Connection
from gearwsgi.wire.payload import Submission
from tests.integration.records.rows import make_row, put
from tests.integration.records.stand import Stand
from tests.support import Bench


def test_what_waits_is_listed_with_service_and_id_where_the_job_server_can_tell(stand: Stand) -> None:
    now = stand.task("/good", {"n": 1})
    later = stand.task("/slow", {"n": 2}, queue="mail", delay=3600)
    stand.app.client.submit([Submission("odd\tqueue", "foreign\x1b", b"no message at all")])
    due = time.time() + 3600
    put(stand.store, make_row(later.id, service="/slow", queue="mail", state="scheduled", due=due, ended=None,
                              place=place(1, QUEUED)))  # fmt: skip
    found = {each.id: each for each in list_waiting(stand.app.settings, 100)}
    assert (found[later.id].queue, found[later.id].service, found[later.id].state) == ("mail", "/slow", "later")
    assert abs((found[later.id].due or 0) - due) < 60
    knows_all = stand.bench.server.kind == "embedded"
    queue = ("job", "/good") if knows_all else ("-", "-")
    assert (found[now.id].queue, found[now.id].service, found[now.id].state) == (*queue, "ready")
    assert len(found) == 3 and "\x1b" not in "".join(found)
    assert len(list_waiting(stand.app.settings, 1)) == 1
    shown = stand.bench.run("status", "--waiting").stdout
    assert now.id in shown and later.id in shown and "later" in shown
    known = json.loads(stand.bench.run("status", "--waiting", "--json").stdout)
    assert {each["id"] for each in known["waiting"]} == set(found)
    queues = {each["queue"]: each for each in known["queues"]}
    if knows_all:
        assert (queues["mail"]["ready"], queues["mail"]["later"], queues["mail"]["oldest"]) == (0, 1, None)
        assert queues["job"]["ready"] == 1 and queues["job"]["oldest"] >= 0


def test_a_job_server_refuses_a_list_of_what_is_no_number(embedded_site: Bench) -> None:
    connection = Connection(parse_address(embedded_site.server.address), 5)
    try:
        for command in (b"show waiting", b"show waiting x", b"show waiting 1 2", b"show waiting -1"):
            connection.send(command + b"\r\n", 5)
            assert connection._read(5, 5).startswith(b"ERR UNKNOWN_SHOW_ARGUMENTS"), command
    finally:
        connection.close()
