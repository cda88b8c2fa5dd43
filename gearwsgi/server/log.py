"""The server's log, which nobody from outside can fill."""

import logging
import time
from collections import deque

__all__ = ["Log"]

AT_MOST = 20  # warnings
SECONDS = 10


class Log:
    """Where the server says what happens."""

    def __init__(self) -> None:
        self._log = logging.getLogger("gearwsgi.server")
        self._warned: deque[float] = deque(maxlen=AT_MOST)  # when the last ones were logged
        self.error = self._log.error

    def warn(self, what: str) -> None:
        """Log a trouble that others cause; when there are many, not all of them."""
        now = time.monotonic()
        if len(self._warned) < AT_MOST or self._warned[0] + SECONDS < now:
            self._warned.append(now)
            self._log.warning("%s%s", what, " (more like this follow)" if len(self._warned) == AT_MOST else "")
