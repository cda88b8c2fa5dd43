"""Dead letters: grouped by service and reason, and one by one; retry or discard one, or all that a filter means."""

import time

from webob import Response

from ...errors import SpoolError
from ...state.records.model import DEAD
from ...submit.actions import Actions
from ..answers import Refused
from ..fields import SPANS
from ..letters import list_ids, list_letters
from ..view import Page, View

_FIELDS = ("service", "queue", "since", "id", "reason")
_ACTIONS = ("retry", "discard")
_PATIENCE = 10.0
"""Seconds that one request goes on with many letters; what is left is done by the next one."""
_BITE = 500
"""Letters that are looked up at once."""


def show(view: View) -> Response:
    """The page."""
    listed = list_letters(view, view.fields.key())
    following = None
    if listed.next is not None:
        chosen = view.fields.chosen(*_FIELDS)
        following = view.address("dead", **chosen, after=repr(listed.next.queued), after_id=listed.next.id)
    return view.render(
        "dead.html",
        listed=listed,
        following=following,
        is_first=view.fields.key() is None,
        spans=tuple(SPANS),
        chosen=view.fields.chosen(*_FIELDS),
        given={name: view.fields.text(name) for name in _FIELDS},
        did=view.fields.choice("did", _ACTIONS),
        done=view.fields.number("done"),
        left=view.fields.number("left"),
    )


def ask(view: View) -> Response:
    """What is about to be done, and with how many: a button does it."""
    what = view.fields.choice("do", _ACTIONS)
    if not what:
        raise Refused(400, "That can't be read", "do says what is to be done: retry or discard.")
    listed = list_letters(view)
    return view.render(
        "ask.html",
        what=what,
        number=listed.number,
        groups=listed.groups[:10],
        chosen={**view.fields.chosen(*_FIELDS), "settled": f"{time.time():.3f}"},
    )


def retry(view: View) -> Response:
    """Queue those that the form means again."""
    return _act(view, "retry", "retried")


def discard(view: View) -> Response:
    """Throw those away that the form means."""
    return _act(view, "discard", "discarded")


def _act(view: View, what: str, did: str) -> Response:
    one = view.fields.text("one")
    if one:
        if not _do(view, what, one):
            raise Refused(404, "Nothing was done", f"There is no dead letter {one}: somebody else was quicker.")
        view.log(f"{did} dead letter {one}")
        return view.go("task" if what == "retry" else "dead", id=one if what == "retry" else None, did=what, done=1)
    if view.fields.number("settled") is None:
        raise Refused(400, "That can't be read", "Use the buttons of the page of dead letters.")
    number, left = _do_many(view, what)
    service = view.fields.text("service")
    if number:
        view.log(f"{did} {number} dead letter{'s' * (number != 1)}" + (f" of {service}" if service else ""))
    return view.go("dead", did=what, done=number, left=left or None, **view.fields.chosen(*_FIELDS))


def _do_many(view: View, what: str) -> tuple[int, int]:
    """Do it with all that are meant, for some seconds; with how many, and how many are left."""
    which = view.fields.filter(time.time(), DEAD)
    end = time.monotonic() + _PATIENCE
    number, tried = 0, set[str]()
    while ids := [each for each in list_ids(view, which, _BITE + len(tried)) if each not in tried]:
        for task_id in ids:
            if time.monotonic() >= end:
                return number, list_letters(view).number
            tried.add(task_id)
            number += _do(view, what, task_id)
    return number, 0


def _do(view: View, what: str, task_id: str) -> bool:
    """Do it with one; whether there was one."""
    actions = Actions(view.client, view.who)
    try:
        (actions.retry if what == "retry" else actions.discard)(task_id)
    except SpoolError:
        return False
    return True


PAGES = (
    Page("dead", show, "Dead letters"),
    Page("dead/ask", ask, under="dead"),
    Page("dead/retry", retry, under="dead", is_action=True),
    Page("dead/discard", discard, under="dead", is_action=True),
)
