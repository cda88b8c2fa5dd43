"""Dead letters: grouped by service and reason, and one by one; retry or discard one, or all that a filter means."""

import logging
import time
from collections.abc import Callable

from webob import Response

from ...errors import SpoolError
from ...log import clean
from ...state.records.model import DEAD
from ...state.shared import Found
from ...submit.actions import Actions
from ..answers import Refused
from ..fields import SPANS
from ..letters import find_letter, list_ids, list_letters
from ..view import Page, View

_log = logging.getLogger("gearwsgi")

_FIELDS = ("service", "queue", "since", "id", "reason")
_ACTIONS = ("retry", "discard")
_PATIENCE = 10.0
"""Seconds for which one request works on many letters; what is left is for the next request."""
_BITE = 500
"""Letters that are looked up in one go."""


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
        failed=view.fields.number("failed"),
        left=view.fields.number("left"),
    )


def ask(view: View) -> Response:
    """Ask before something is done: say what, and with how many letters."""
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
    """Queue again the tasks of the letters that the form asks for."""
    return _act(view, "retry", "retried")


def discard(view: View) -> Response:
    """Throw away the letters that the form asks for."""
    return _act(view, "discard", "discarded")


def _act(view: View, what: str, did: str) -> Response:
    actions = Actions(view.client, view.who)
    do = actions.retry if what == "retry" else actions.discard
    one = view.fields.text("one")
    if one:
        with actions.letters() as letters:
            found = find_letter(view, one)
            if found is None:
                raise Refused(404, "Nothing was done", f"There is no dead letter {one}: somebody else was quicker.")
            do(found, letters)
        view.log(f"{did} dead letter {one}")
        return view.go("task", id=one) if what == "retry" else view.go("dead", did=what, done=1)
    if view.fields.number("settled") is None:
        raise Refused(400, "That can't be read", "Use the buttons of the page of dead letters.")
    with actions.letters() as letters:
        number, failed, left = _do_many(view, lambda found: do(found, letters))
    service = view.fields.text("service")
    if number:
        view.log(f"{did} {number} dead letter{'s' * (number != 1)}" + (f" of {service}" if service else ""))
    chosen = view.fields.chosen(*[name for name in _FIELDS if name != "id"])
    return view.go("dead", did=what, done=number, failed=failed or None, left=left or None, **chosen)


def _do_many(view: View, do: Callable[[Found], object]) -> tuple[int, int, int]:
    """Call `do` with each letter that is meant, for some seconds; how many went well, failed, and are left."""
    which = view.fields.filter(time.time(), DEAD)
    end = time.monotonic() + _PATIENCE
    number, failed, tried = 0, 0, set[str]()
    while ids := [each for each in list_ids(view, which, _BITE + len(tried)) if each not in tried]:
        for task_id in ids:
            if time.monotonic() >= end:
                return number, failed, max(0, list_letters(view).number - failed)
            tried.add(task_id)
            found = find_letter(view, task_id)
            if found is None:
                continue  # somebody else has done it meanwhile
            try:
                do(found)
                number += 1
            except SpoolError as error:
                failed += 1
                _log.warning("dashboard: left alone: %s", clean(str(error)))
    return number, failed, 0


PAGES = (
    Page("dead", show, "Dead letters"),
    Page("dead/ask", ask, under="dead"),
    Page("dead/retry", retry, under="dead", is_action=True),
    Page("dead/discard", discard, under="dead", is_action=True),
)
