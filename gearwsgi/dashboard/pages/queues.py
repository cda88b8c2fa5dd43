"""Queues: what waits where, and who serves it."""

from webob import Response

from ...state.overview import collect, is_unserved
from ..fields import SPANS
from ..view import OFF, Page, View


def show(view: View) -> Response:
    """The page."""
    known = collect(view.settings)
    return view.render(
        "queues.html", known=known, spans=tuple(SPANS), unserved=is_unserved, can_pause=known["records"]["on"], off=OFF
    )


PAGES = (Page("queues", show, "Queues"),)
