"""Routes: patterns of paths, each with a method or without, and the requests that they match. Pure.

A path is tried as the application may see it: as it came, with slashes collapsed, with dot segments resolved, and with
a slash at its end. Where any of these matches, the request does.
"""

import fnmatch
import posixpath
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from ..errors import ConfigError
from .targets import TOKEN

_NEVER_MEANT = frozenset({"OPTIONS", "HEAD"})
"""Methods that a route matches only where it names them: they ask what another request would do."""


class Route(NamedTuple):
    """One route: the requests that it matches.

    Attributes:
        method: the only method that it matches; empty: any but OPTIONS and HEAD.
        pattern: of the path below the application's mount, as `fnmatch` has it: `*` matches slashes, too.
    """

    method: str
    pattern: str

    def __str__(self) -> str:
        return f"{self.method} {self.pattern}".lstrip()


def read_route(where: str, text: Any) -> Route:
    """Read `POST /reports/*`, or a pattern alone.

    Args:
        where: what an error calls the place where it stands.
        text: what was given.

    Raises:
        ConfigError: it can't be a route.
    """
    method, blank, pattern = text.rpartition(" ") if isinstance(text, str) else ("", "", "")
    if not pattern.startswith("/") or (blank and not TOKEN.fullmatch(method)):
        raise ConfigError(f"{where} is {text!r}: give a method and a pattern of paths, such as 'POST /reports/*'")
    return Route(method.upper(), pattern)


class Routes:
    """Finds the route that matches a request.

    Args:
        routes: the routes; the first that matches counts.
    """

    def __init__(self, routes: Iterable[Route]) -> None:
        self._routes = [(route.method, Paths([route.pattern])) for route in routes]

    def find(self, method: str, path: str) -> int | None:
        """The number of the first route that matches a request with this method and PATH_INFO; None: none does."""
        ways: tuple[str, ...] = ()
        for number, (wanted, paths) in enumerate(self._routes):
            if wanted == method or (not wanted and method not in _NEVER_MEANT):
                ways = ways or spellings(path)
                if paths.fit(ways):
                    return number
        return None


class Paths:
    """Patterns of paths, to be compared with a path.

    Args:
        patterns: as `fnmatch` has them.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        # PEP 3333: each byte of a path comes as one character. Some servers decode the path: that spelling matches as
        # well.
        both = {spelling for pattern in patterns for spelling in (pattern, pattern.encode().decode("latin-1"))}
        self._matches = re.compile("|".join(fnmatch.translate(each) for each in sorted(both)), re.DOTALL).match

    def fit(self, ways: Iterable[str]) -> bool:
        """Whether one of these spellings of a path matches a pattern."""
        return any(map(self._matches, ways))


def spellings(path: str) -> tuple[str, ...]:
    """The spellings of a PATH_INFO, which the server has decoded once, that an application may go by."""
    collapsed = re.sub("/+", "/", "/" + path)
    resolved = posixpath.normpath(collapsed)
    return path, collapsed, resolved, resolved.rstrip("/") + "/"
