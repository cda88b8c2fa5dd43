"""What `ps` shows of each process, where the package setproctitle is installed (`gearwsgi[titles]`).

The supervisor keeps its command line: it says what that process is, and scripts know it by that.
"""

import os
from collections.abc import Callable


def find() -> Callable[[str], object] | None:
    """What sets a process's title; None where it is not installed."""
    try:
        from setproctitle import setproctitle
    except ImportError:
        return None
    found: Callable[[str], object] = setproctitle  # where it is missing, its type is not known
    return found


def show(what: str, app: str) -> None:
    """This process, and those that it forks, are `what` of the application `module:name`."""
    show_title = find()
    if show_title is None:
        return
    # Room for a title is the command line's, and not what lies behind it: others read a process's environment there.
    own = "SPT_NOENV" not in os.environ
    os.environ.setdefault("SPT_NOENV", "1")
    show_title(title(what, app))
    if own:
        del os.environ["SPT_NOENV"]


def title(what: str, app: str) -> str:
    """The title of a process: `gearwsgi: worker 2 mysite.wsgi`."""
    return f"gearwsgi: {what} {app.partition(':')[0]}"
