"""Tasks: those that a filter means, the newest first."""

from webob import Response

from ...state.records.model import STATES
from ...state.records.queries import Filter, Queries
from ..fields import SPANS
from ..view import Page, View

_FIELDS = ("state", "service", "queue", "since", "id", "reason")
_MOST = 1000


def show(view: View) -> Response:
    """The page."""
    found = following = count = None
    services: list[str] = []
    queues: list[str] = []
    with view.records() as store:
        if store is not None:
            queries = Queries(store.database)
            which = view.fields.filter(store.database.now())
            found, after = queries.page(which, view.fields.key())
            count = queries.count(which, _MOST)
            services, queues = queries.names(Filter())
            if after is not None:
                chosen = view.fields.chosen(*_FIELDS)
                following = view.address("tasks", **chosen, after=repr(after.queued), after_id=after.id)
    return view.render(
        "tasks.html",
        found=found,
        following=following,
        is_first=view.fields.key() is None,
        count=count,
        most=_MOST,
        states=STATES,
        spans=tuple(SPANS),
        services=services,
        queues=queues,
        chosen=view.fields.chosen(*_FIELDS),
        given={name: view.fields.text(name) for name in _FIELDS},
    )


PAGES = (Page("tasks", show, "Tasks"),)
