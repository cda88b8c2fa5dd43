"""A dead letter's request, to download: as `.http`, as a curl command line, as a test."""

from dataclasses import replace
from pathlib import Path

from webob import Response

from ...errors import BadMessage
from ...message import reading
from ...message.redact import redact_payload
from ...state.reproduce import ENDS_A_PROCESS, write_curl, write_test
from ..answers import Refused
from ..letters import find_letter
from ..view import Page, View

KINDS = ("http", "curl", "pytest")


def show(view: View) -> Response:
    """The file."""
    kind = view.fields.choice("as", KINDS) or "http"
    task_id = view.fields.text("id")
    found = find_letter(view, task_id)
    if found is None:
        raise Refused(404, "No such dead letter", "It was retried or discarded, or it never was.")
    letter, settings = found.letter, view.settings
    short = "".join(char for char in letter.id if char.isascii() and char.isalnum())[:12] or "letter"
    payload = redact_payload(letter.payload, settings.redact)
    if kind == "http":
        return view.download(f"dead-{short}.http", payload)
    try:
        task = reading.read(letter.payload, max_body=settings.max_body)
        if kind == "curl":
            redacted = reading.read(payload, max_body=settings.max_body)
            return view.download(f"dead-{short}.sh", (write_curl(redacted, Path(f"dead-{short}.http")) + "\n").encode())
    except BadMessage as error:
        raise Refused(404, "No such request", f"This dead letter holds no request: {error}") from error
    limit = settings.time_limit(task)
    task = replace(task, attempt=1, failures=())
    if letter.outcome in ENDS_A_PROCESS:
        task = replace(task, max_attempts=1, timeout=limit)
    payload = redact_payload(task.to_bytes(), settings.redact)
    text = write_test(letter, payload, view.site.app or "module:name", short, limit)
    return view.download(f"test_dead_{short}.py", text.encode())


PAGES = (Page("letter", show, under="dead"),)
