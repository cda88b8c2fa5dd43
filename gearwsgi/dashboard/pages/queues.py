"""Queues: what waits where, and who serves it; pause one, for so long, and resume it."""

from webob import Response

from ...state.overview import collect, is_unserved
from ...submit.actions import Actions
from ..fields import SPANS
from ..view import OFF, Page, View


def show(view: View) -> Response:
    """The page."""
    known = collect(view.settings)
    return view.render(
        "queues.html",
        known=known,
        spans=tuple(SPANS),
        unserved=is_unserved,
        can_pause=known["records"]["on"],
        off=OFF,
    )


def pause(view: View) -> Response:
    """Have no worker take jobs of a queue."""
    span = view.fields.choice("for", tuple(SPANS))
    queue = view.fields.needed("queue")
    Actions(view.client, view.who).pause(queue, SPANS.get(span))
    view.log(f"paused the queue {queue}" + (f" for {span}" if span else ""))
    return view.go("queues")


def resume(view: View) -> Response:
    """Have them taken again."""
    queue = view.fields.needed("queue")
    if Actions(view.client, view.who).resume(queue).did:
        view.log(f"resumed the queue {queue}")
    return view.go("queues")


PAGES = (
    Page("queues", show, "Queues"),
    Page("queues/pause", pause, under="queues", is_action=True),
    Page("queues/resume", resume, under="queues", is_action=True),
)
