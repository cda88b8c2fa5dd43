"""Limits by key: which hold, and the keys of which most waits."""

from webob import Response

from ...state.limits import MOST_KEYS
from ...state.overview import collect
from ..view import Page, View


def show(view: View) -> Response:
    """The page."""
    return view.render("limits.html", known=collect(view.settings), most=MOST_KEYS)


PAGES = (Page("limits", show, "Limits"),)
