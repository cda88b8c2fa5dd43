"""Limits by key, with real supervisors and job servers: never over them, by what the handlers write themselves."""

import contextlib
import json
import signal
import time
import urllib.request
from collections import Counter
from queue import SimpleQueue
from typing import Any

import pytest
from webtest import TestApp

from gearwsgi.dashboard import Dashboard
from gearwsgi.wire.connection import Connection
from gearwsgi.worker import watch
from tests.limited import change, events, gone, is_alive, most, set_up, started, worker
from tests.support import Bench, free_port, until


def test_keys_are_never_over_their_limits_and_hold_up_nobody(site: Bench) -> None:
    app = set_up(site, {"one:*": {"concurrency": 1}, "two": {"concurrency": 2}, "rare": {"rate": "3/second"}})
    first = worker(site, "--workers", "4")
    for n in range(40):
        app.gearman.task("/work", {"key": "one:1", "n": n, "fails": n == 0}, limit="one:1")
        app.gearman.task("/work", {"key": "one:2", "n": n, "seconds": 0.01, "dies": n == 5}, limit="one:2")
        app.gearman.task("/work", {"key": "two", "n": n, "seconds": 0.02}, limit="two")
        app.gearman.task("/work", {"key": "-", "n": n, "seconds": 0.01})
    for n in range(9):
        app.gearman.task("/work", {"key": "rare", "n": n}, limit="rare")
    until(lambda: sum(event.what == "end" for event in events(site)) == 40 * 4 + 9 + 1, "all have ended")
    found = events(site)
    assert most(found)["one:1"] == most(found)["one:2"] == 1 and most(found)["two"] == 2
    # In order, but for the first, whose second attempt comes later.
    order = [event.number for event in found if event.what == "begin" and event.key == "one:1"]
    assert [n for n in order if n] == list(range(1, 40)) and order[0] == 0
    starts = started(found, "rare")
    assert all(later - sooner > 0.9 for sooner, later in zip(starts, starts[3:], strict=False)), starts
    # Those without a key have waited for none of that.
    last_free = max(place for place, event in enumerate(found) if event.key == "-")
    assert any(event.key == "rare" for event in found[last_free:]), "tasks without a key waited for a key's"
    assert first.process.poll() is None


def test_a_limit_that_is_changed_holds_for_what_starts_from_then_on(embedded_site: Bench) -> None:
    site = embedded_site
    app = set_up(site, {"*": {"concurrency": 1}})
    supervisor = worker(site, "--workers", "3")
    for n in range(120):
        app.gearman.task("/work", {"key": "a", "n": n, "seconds": 0.1}, limit="a")
    until(lambda: len(started(events(site), "a")) > 5)
    assert most(events(site))["a"] == 1
    change(site, {"*": {"concurrency": 3}})
    supervisor.signal(signal.SIGHUP)
    until(lambda: most(events(site))["a"] == 3, "three at once")
    change(site, {"*": {"concurrency": 1}})
    supervisor.signal(signal.SIGHUP)
    supervisor.wait_for("worker ready", 3)
    then = len(events(site)) + 6  # up to three run still, and begin and end
    until(lambda: sum(event.what == "end" for event in events(site)) == 120, "all have ended")
    assert len(events(site)) > then + 10 and most(events(site)[then:])["a"] == 1


def test_two_supervisors_are_never_over_a_limit_also_when_one_is_killed(site: Bench) -> None:
    app = set_up(site, {"one:*": {"concurrency": 1}, "two:*": {"concurrency": 2}})
    supervisors = [worker(site, "--workers", "3") for _ in range(2)]
    keys = [f"one:{n}" for n in range(8)] + [f"two:{n}" for n in range(4)]
    children = {pid for each in supervisors for pid in until(each.children, "its processes")}

    def fill(number: int) -> None:
        for key in keys:
            app.gearman.task("/work", {"key": key, "n": number, "seconds": 0.05}, limit=key)

    def done(number: int) -> bool:
        ended = Counter((event.key, event.number) for event in events(site) if event.what == "end")
        return all(ended[key, number] for key in keys)

    for number in range(4):
        fill(number)
    until(lambda: done(3), "the first are done")
    assert len({event.pid for event in events(site)} & children) > 3, "both have keys"
    # A long one of each key runs, and its supervisor dies.
    for key in keys:
        app.gearman.task("/work", {"key": key, "n": 4, "seconds": 3}, limit=key)
    until(lambda: any(event.number == 4 for event in events(site)), "one runs")
    pids = supervisors[0].children()
    supervisors[0].process.kill()
    supervisors[0].process.wait()
    until(lambda: not any(map(is_alive, pids)), "its processes are gone")
    gone(site, pids, time.time())
    fill(5)
    until(lambda: done(5) and done(4), "another owns its keys")
    found = most(events(site))
    assert all(found[key] <= (1 if key.startswith("one") else 2) for key in keys), found


def test_limits_are_shown_paused_and_changed_at_run_time(site: Bench) -> None:
    app = set_up(site, {"stripe:*": {"concurrency": 1}, "mail": {"rate": "100/hour"}})
    port = free_port()
    supervisor = worker(site, "--workers", "3", "--metrics", f"127.0.0.1:{port}")
    go = site.folder / "go"

    def queue(numbers: range) -> None:
        for n in numbers:
            app.gearman.task("/work", {"key": "stripe:42", "n": n, "waits": True}, limit="stripe:42")

    def known() -> Any:
        return json.loads(site.run("status", "--json").stdout)

    queue(range(6))
    shown = until(
        lambda: next((each for each in known()["keys"] if each["running"] and each["waiting"] == 5), None), "one runs"
    )
    assert shown["key"] == "stripe:42" and shown["running"] == shown["concurrency"] == 1
    assert [each["queue"] for each in known()["queues"]] == ["job"], "a key's queue is no queue of its own here"
    assert "stripe:42" in site.run("status").stdout
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        text = answer.read().decode()
    assert 'gearwsgi_limit_running{pattern="stripe:*"} 1.0' in text
    assert 'gearwsgi_limit_waiting{pattern="mail"} 0.0' in text and "stripe:42" not in text
    dashboard = Dashboard(app, lambda environ: "ada")
    page = TestApp(dashboard).get("/limits").text
    assert "stripe:42" in page and "1 / 1" in page and "100/hour" in page

    # A pause of its queue holds for a key: what runs ends, and nothing begins.
    site.run("pause", "job")
    supervisor.wait_for("queue job is paused")
    go.touch()
    until(lambda: not any(each["running"] for each in known()["keys"]), "nothing runs")
    assert len(started(events(site), "stripe:42")) == 1
    site.run("resume", "job")
    until(lambda: len(started(events(site), "stripe:42")) == 6, "it goes on")
    assert most(events(site))["stripe:42"] == 1
    go.unlink()

    assert "2 at once until it is reset" in site.run("limit", "set", "stripe:*", "--concurrency", "2").stdout
    listed = site.run("limit", "list").stdout
    assert "stripe:*" in listed and "@" in listed and "100/hour" in listed
    assert site.run("limit", "set", "other", "--rate", "1/second", ok=False).returncode
    assert "100/minute" in site.run("limit", "set", "mail", "--rate", "often", ok=False).stderr
    queue(range(6, 12))
    until(lambda: most(events(site))["stripe:42"] == 2, "two at once")
    assert "limits changed: stripe:* (2 at once, by " in site.run("status").stdout
    assert "what the setting says" in site.run("limit", "reset", "stripe:*").stdout
    until(lambda: "limits changed" not in site.run("status").stdout, pause=0.2)
    go.touch()
    until(lambda: len(started(events(site), "stripe:42")) == 12 and not known()["keys"], "all have run")
    assert most(events(site))["stripe:42"] == 2


def test_a_rate_holds_over_one_reload_after_the_other(site: Bench) -> None:
    app = set_up(site, {"rare": {"rate": "5/minute"}})
    supervisor = worker(site, "--workers", "2")
    for n in range(20):
        app.gearman.task("/work", {"key": "rare", "n": n}, limit="rare")
    until(lambda: started(events(site), "rare"), "the first has begun")
    for number in range(5):
        supervisor.signal(signal.SIGHUP)
        supervisor.wait_for("worker ready", number + 2)
        app.gearman.task("/work", {"n": number})
    until(lambda: len(started(events(site), "-")) == 5, "those without a key have run")
    starts = started(events(site), "rare")
    assert all(later - sooner > 59 for sooner, later in zip(starts, starts[5:], strict=False)), starts


def test_the_queue_of_a_key_is_dropped_from_an_embedded_job_server_and_never_with_a_job(
    embedded_site: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = embedded_site
    monkeypatch.setattr(watch, "IDLE", 0.0)
    app = site.app(limits={"*": {"concurrency": 1}})
    app.gearman.task("/good", limit="kept")
    with contextlib.closing(Connection(app.settings.servers[0], 5)) as connection:
        for n in range(700):
            connection.admin(f"create function job#key{n}", 5)
        answers: SimpleQueue[watch.Answer] = SimpleQueue()
        looking = watch.Watch(app.settings.servers[0], lambda what: what(), lambda *said: answers.put(said[2]))
        looking.tend()
        until(lambda: len(connection.admin("status", 5)) == 1, "all but one are dropped")
        assert answers.get() == {"job#kept": watch.Count(1, 0)}
        looking.stop()
        assert connection.admin("status", 5)[0].startswith("job#kept\t1\t")
