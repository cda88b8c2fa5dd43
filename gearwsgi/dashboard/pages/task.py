"""One task: its story, its request, its result, and what can be done with it."""

from dataclasses import dataclass, replace
from datetime import datetime

from webob import Response

from ...errors import BadMessage, RecordsUnavailable, ServerUnavailable, SpoolError, UnknownTask
from ...message.redact import redact_lines, redact_payload
from ...message.response import read_response, write_response
from ...state.dead import DeadLetter
from ...state.outbox import Outbox
from ...state.records import model
from ...state.records.model import DEAD, ENDED, QUEUED, RUNNING, UNKNOWN, Attempt, Record
from ...submit.actions import Actions
from ...submit.lookup import Lookup
from ..answers import Refused
from ..letters import died_at, find_letter
from ..view import Page, View

_BY_PEOPLE = ("cancelled", "discarded")
_SHOWN = 64 * 1024
"""Bytes of a request or a response that are shown."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A request or a response, for people to read."""

    text: str
    left_out: int


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a task's history: when, what, the attempt if it is one, and who did it, if somebody did."""

    at: datetime | None
    what: str
    attempt: Attempt | None = None
    by: str = ""


def show(view: View) -> Response:
    """The page."""
    record = _find(view)
    result = message = None
    events: tuple[model.Event, ...] = ()
    with view.records() as store:
        if store is not None:
            events = store.story(record.id)
            message = store.message(record.id)
            content = store.result(record.id)
            result = _response(view, content) if content is not None else None
    found = find_letter(view, record.id) if record.state == DEAD else None
    letter = found.letter if found is not None else None
    payload = letter.payload if letter is not None else message or _waiting(view, record)
    secret = view.settings.redact
    return view.render(
        "task.html",
        record=record,
        story=_story(record, events),
        result=result,
        letter=letter,
        request=_text(redact_payload(payload, secret)) if payload is not None else None,
        notes="\n".join(redact_lines(letter.notes, secret)) if letter is not None else "",
        trace=_trace(view.site.trace_url, record),
        can_cancel=record.state not in ENDED,
        is_over=record.state in ENDED,
    )


def _waiting(view: View, record: Record) -> bytes | None:
    """The message of a task that waits in the outbox."""
    box = Outbox(view.settings)
    if record.state != QUEUED or not box.holds(record.id):
        return None
    name = next((name for name in box.spool.names() if name.endswith(f"-{record.id}")), "")
    try:
        return box.spool.get(name).message if name else None
    except SpoolError:
        return None  # it was submitted meanwhile


def _find(view: View) -> Record:
    task_id = view.fields.text("id")
    try:
        if not task_id:
            raise UnknownTask("an empty id is no task's")
        return Lookup(view.client, task_id).record()
    except UnknownTask as error:
        text = f"{error}. Its record may be gone: records are kept for so long and so many as their settings say."
        raise Refused(404, "No such task", text) from error
    except ServerUnavailable as error:
        raise Refused(503, "Nobody knows this task", f"No record has it, and {error}.") from error
    except RecordsUnavailable:
        if view.settings.records:
            raise
        found = find_letter(view, task_id)
        if found is not None:
            return _of_letter(found.letter)
        state = Lookup(view.client, task_id).status()
        if state.state == UNKNOWN:
            raise Refused(404, "No such task", "Job servers and outbox don't know it, and records are off.") from None
        return replace(_NOTHING, id=task_id, state=state.state)


_NOTHING = Record(
    id="", service="-", method="-", path="-", queue="-", priority="normal", state=UNKNOWN, queued=None, due=None,
    started=None, ended=None, attempts=0, max_attempts=None, progress=None, status=None, reason=None, host=None,
    pid=None, request_id=None, traceparent=None,
)  # fmt: skip


def _of_letter(letter: DeadLetter) -> Record:
    """What a dead letter says of its task, where there are no records."""
    method, _, path = letter.target.partition(" ")
    return replace(
        _NOTHING, id=letter.id, service=letter.service, method=method, path=path, queue=letter.queue, state=DEAD,
        ended=died_at(letter), attempts=letter.attempts, reason=letter.reason,
    )  # fmt: skip


def _story(record: Record, events: tuple[model.Event, ...]) -> list[Line]:
    """What happened, the oldest first."""
    lines = [Line(record.queued, "queued")]
    lines += [Line(attempt.started, attempt.outcome, attempt) for attempt in record.history]
    lines += [Line(event.at, event.what, by=event.by) for event in events]
    told = {line.what for line in lines}
    if record.state == RUNNING:
        began = record.started if record.attempts == 1 else None
        lines.append(Line(began, f"attempt {record.attempts} runs"))
    elif record.state in _BY_PEOPLE and record.state not in told:
        lines.append(Line(record.ended, record.state))
    elif record.due is not None and record.state not in ENDED:
        lines.append(Line(record.due, "due"))
    return sorted((line for line in lines if line.at or line.attempt or line.what != "queued"), key=_place)


def _place(line: Line) -> tuple[bool, float]:
    return line.at is None, line.at.timestamp() if line.at is not None else 0.0


def _response(view: View, content: bytes) -> Shown:
    try:
        status, headers, body = read_response(content)
    except BadMessage as error:
        return Shown(str(error), 0)
    whole = write_response(status, headers, b"") + body
    return _text(redact_payload(whole, view.settings.redact))


def _text(content: bytes) -> Shown:
    return Shown(content[:_SHOWN].decode("utf-8", "backslashreplace"), max(0, len(content) - _SHOWN))


def _trace(template: str, record: Record) -> str:
    """The address of its trace; empty where there is none."""
    parts = (record.traceparent or "").split("-")
    if not template or len(parts) < 4 or len(parts[1]) != 32 or not parts[1].isalnum():
        return ""
    return template.replace("{trace_id}", parts[1])


def cancel(view: View) -> Response:
    """Cancel it: one that waits never runs, one that runs is ended."""
    done = Actions(view.client, view.who).cancel(view.fields.needed("id"))
    if done.did:
        view.log(f"cancelled task {view.fields.needed('id')}")
    return view.go("task", id=view.fields.needed("id"))


PAGES = (
    Page("task", show, under="tasks"),
    Page("task/cancel", cancel, under="tasks", is_action=True),
)
