"""The server's log. Peers can't fill it, whatever they do."""

import logging
import time
from collections import deque

__all__ = ["Log"]

AT_MOST = 20  # warnings
SECONDS = 10


class Log:
    """Logs what happens in the server."""

    def __init__(self) -> None:
        self._log = logging.getLogger("gearwsgi.server")
        self._warned: deque[float] = deque(maxlen=AT_MOST)  # when the last ones were logged
        self.error = self._log.error

    def warn(self, what: str) -> None:
        """Log trouble that a peer causes; if there is much of it, not all."""
        now = time.monotonic()
        if len(self._warned) < AT_MOST or self._warned[0] + SECONDS < now:
            self._warned.append(now)
            self._log.warning("%s%s", what, " (more like this follow)" if len(self._warned) == AT_MOST else "")
