"""The small page that shows how far a task is. It needs neither JavaScript nor anything from another address."""

import base64
import hashlib
import html

from ...state.records import model

_STYLE = """
:root { color-scheme: light dark; font: 1.05rem/1.5 system-ui, sans-serif }
body { margin: 0; min-height: 100vh; display: grid; place-items: center }
main { box-sizing: border-box; width: min(34rem, 100%); padding: 2rem 1.25rem }
h1 { font-size: 1.5rem; margin: 0 0 .5rem }
p { margin: .75rem 0 }
progress { width: 100%; height: 1rem }
small { opacity: .75; overflow-wrap: anywhere }
"""
_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
POLICY = f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
"""The page's Content-Security-Policy."""

_SAYS = {
    model.QUEUED: ("Waiting", "Your request has been taken and waits for its turn."),
    model.SCHEDULED: ("Scheduled", "Your request has been taken and will be worked on at its time."),
    model.RUNNING: ("In progress", "Your request is being worked on."),
    model.RETRYING: ("Waiting for another try", "It did not succeed yet, and is tried again by itself."),
    model.DONE: ("Done", "Your request has been dealt with."),
    model.DEAD: ("Failed", "Your request could not be dealt with."),
    model.CANCELLED: ("Cancelled", "Your request was cancelled."),
    model.DISCARDED: ("Failed", "Your request could not be dealt with."),
}


def page(
    task_id: str, state: str, *, progress: tuple[int, int] | None = None, refresh: int | None, url: str = ""
) -> str:
    """The page.

    Args:
        task_id: the task's id.
        state: its state.
        progress: (done, total), where its handler reports it.
        refresh: seconds after which the browser loads it again; None: it does not.
        url: what it then loads; empty: the page's own address.
    """
    title, text = _SAYS[state]
    target = f"; url={html.escape(url)}" if url else ""
    again = f'<meta http-equiv="refresh" content="{refresh}{target}">\n' if refresh is not None else ""
    link = html.escape(url or task_id)
    lines = [f"<h1>{title}</h1>", f"<p>{text}</p>"]
    if refresh is not None:
        lines.append(_bar(progress))
        lines.append(f'<p>This page looks again by itself. <a href="{link}">Look now</a></p>')
    lines.append(f"<p><small>{html.escape(task_id)}</small></p>")
    body = "\n".join(lines)
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width">\n{again}<title>{title}</title>\n'
        f"<style>{_STYLE}</style>\n<main>\n{body}\n</main>\n</html>\n"
    )


def _bar(progress: tuple[int, int] | None) -> str:
    if progress is None or progress[1] <= 0:
        return '<progress aria-label="progress"></progress>'
    done, total = progress
    return (
        f'<progress aria-label="progress" value="{min(done, total)}" max="{total}"></progress>\n'
        f"<p>{done} of {total}</p>"
    )
