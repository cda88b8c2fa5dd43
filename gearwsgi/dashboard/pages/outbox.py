"""The outbox: what no job server has taken yet."""

from typing import Any

from webob import Response

from ...errors import GearwsgiError
from ...state.outbox import Outbox
from ..view import Page, View

_SHOWN = 100


def show(view: View) -> Response:
    """The page."""
    box = Outbox(view.settings)
    names = box.spool.names()
    rows: list[dict[str, Any]] = []
    for name in names[:_SHOWN]:
        written = box.spool.modified(name)
        try:
            waiting = box.get(name)
        except GearwsgiError as error:
            if written:  # else it is submitted meanwhile
                rows.append({"name": name, "error": str(error), "since": written})
            continue
        rows.append({"name": name, "error": "", "since": written, "task": waiting, "bytes": len(waiting.payload)})
    return view.render("outbox.html", rows=rows, count=len(names), servers=view.settings.servers)


PAGES = (Page("outbox", show, "Outbox"),)
