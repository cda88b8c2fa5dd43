"""The overview: what needs attention, how much is done, the queues, the fleet."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from webob import Response

from ...errors import RecordsError
from ...state.overview import collect, is_unserved
from ...state.records.model import DEAD
from ...state.records.queries import Filter, Queries, Step
from ..charts import draw
from ..view import Page, View

MOST = 100_000
"""Dead letters that are counted, at most."""
_CHARTS = {"hour": (60, 60.0, "the last hour"), "day": (96, 900.0, "the last day")}


class Note(NamedTuple):
    """Something to look at: how bad it is, what it is, and the page about it."""

    level: str
    text: str
    path: str


def show(view: View) -> Response:
    """The page."""
    span = view.fields.choice("span", tuple(_CHARTS)) or "hour"
    number, seconds, name = _CHARTS[span]
    known = collect(view.settings)
    steps: list[Step] = []
    dead = known["dead"]
    try:
        with view.records() as store:
            if store is not None:
                queries = Queries(store.database)
                steps = queries.steps(number, seconds)
                dead = queries.count(Filter(state=DEAD), MOST)
    except RecordsError as error:
        view.trouble = f"The records can't be read: {error}"
    return view.render(
        "overview.html",
        known=known,
        notes=list(attention(known)),
        total=_total(known["queues"]),
        dead=dead,
        most=MOST,
        chart=draw(steps, seconds, name) if steps else None,
        span=span,
        unserved=is_unserved,
    )


def attention(known: Mapping[str, Any]) -> Iterator[Note]:
    """What needs attention, the worst first."""
    for server in known["servers"]:
        if not server["up"]:
            text = (
                f"Job server {server['address']} does not answer; what is queued waits in the outbox: {server['error']}"
            )
            yield Note("bad", text, "outbox")
    if known["records"]["error"]:
        yield Note("bad", f"The records can't be read: {known['records']['error']}", "")
    for each in known["supervisors"]:
        if not each["fresh"]:
            text = f"Supervisor {each['host']}:{each['pid']} has not been heard of for {each['silent']:.0f} s."
            yield Note("bad", text, "")
    for queue in known["queues"]:
        if is_unserved(queue):
            name, number = queue["queue"], queue["ready"] + queue["later"]
            wait = "1 waits" if number == 1 else f"{number:,} wait"
            yield Note("bad", f"No worker serves the queue {name}, where {wait}: `gearwsgi worker --queues`", "queues")
    hour = known["last_hour"]
    if hour["dead"]:
        yield Note("warn", f"{hour['dead']:,} died in the last hour.", "dead")
    if hour["outbox"]:
        text = f"The outbox has grown by {hour['outbox']:,} in the last hour: no job server took them."
        yield Note("warn", text, "outbox")
    for queue in known["queues"]:
        if queue["paused"]:
            yield Note("info", f"The queue {queue['queue']} is paused.", "queues")


def _total(queues: list[dict[str, Any]]) -> dict[str, int]:
    """The sums of the queues' numbers; 0 for what is not known."""
    names = ("ready", "later", "running", "workers", "per_minute", "failed")
    return {name: sum(queue[name] or 0 for queue in queues) for name in names}


PAGES = (Page("", show, "Overview"),)
