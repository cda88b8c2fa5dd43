"""Sets what `ps` shows of each process, where the package setproctitle is installed (`gearwsgi[titles]`).

The supervisor keeps its command line, which says what that process is: scripts look for it there.
"""

import os
from collections.abc import Callable


def find() -> Callable[[str], object] | None:
    """The function that sets a process's title; None where the package is not installed."""
    try:
        from setproctitle import setproctitle
    except ImportError:
        return None
    found: Callable[[str], object] = setproctitle  # mypy knows no type for it where it is not installed
    return found


def show(what: str, app: str) -> None:
    """Give this process, and those that it forks, the title of `what` of the application `module:name`."""
    show_title = find()
    if show_title is None:
        return
    # Let a title have no more room than the command line's: behind it lies the environment, which others may read.
    own = "SPT_NOENV" not in os.environ
    os.environ.setdefault("SPT_NOENV", "1")
    show_title(title(what, app))
    if own:
        del os.environ["SPT_NOENV"]


def title(what: str, app: str) -> str:
    """A title: `gearwsgi: worker 2 mysite.wsgi`."""
    return f"gearwsgi: {what} {app.partition(':')[0]}"
