"""Routes: which requests a pattern of paths, and a method, are meant for. Pure.

A path is looked at as the application may see it: as it came, with slashes collapsed, with dot segments resolved, and
with a slash at its end. Where any of them fits, the request is meant.
"""

import fnmatch
import posixpath
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from ..errors import ConfigError
from .targets import TOKEN

_NEVER_MEANT = frozenset({"OPTIONS", "HEAD"})
"""Methods that a route is not for unless it names them: they ask what another would do."""


class Route(NamedTuple):
    """One route.

    Attributes:
        method: the only one that is meant; empty: any but OPTIONS and HEAD.
        pattern: of the path below the application's mount, as `fnmatch` has it: `*` takes slashes, too.
    """

    method: str
    pattern: str

    def __str__(self) -> str:
        return f"{self.method} {self.pattern}".lstrip()


def read_route(where: str, text: Any) -> Route:
    """`POST /reports/*`, or a pattern alone.

    Args:
        where: what an error calls the place where it stands.
        text: what was given.

    Raises:
        ConfigError: it is none.
    """
    method, blank, pattern = text.rpartition(" ") if isinstance(text, str) else ("", "", "")
    if not pattern.startswith("/") or (blank and not TOKEN.fullmatch(method)):
        raise ConfigError(f"{where} is {text!r}: give a method and a pattern of paths, such as 'POST /reports/*'")
    return Route(method.upper(), pattern)


class Routes:
    """Finds the route that a request is for.

    Args:
        routes: the first that fits counts.
    """

    def __init__(self, routes: Iterable[Route]) -> None:
        self._routes = [(route.method, Paths([route.pattern])) for route in routes]

    def find(self, method: str, path: str) -> int | None:
        """The number of the route that a request with this method and PATH_INFO is for; None: of none."""
        ways: tuple[str, ...] = ()
        for number, (wanted, paths) in enumerate(self._routes):
            if wanted == method or (not wanted and method not in _NEVER_MEANT):
                ways = ways or spellings(path)
                if paths.fit(ways):
                    return number
        return None


class Paths:
    """Patterns of paths.

    Args:
        patterns: as `fnmatch` has them.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        # PEP 3333: a path's bytes come as one character each. A server that decodes them itself is met as well.
        both = {spelling for pattern in patterns for spelling in (pattern, pattern.encode().decode("latin-1"))}
        self._matches = re.compile("|".join(fnmatch.translate(each) for each in sorted(both)), re.DOTALL).match

    def fit(self, ways: Iterable[str]) -> bool:
        """Whether one of these ways to write a path fits."""
        return any(map(self._matches, ways))


def spellings(path: str) -> tuple[str, ...]:
    """The ways in which an application may take a PATH_INFO, which the server has decoded once."""
    collapsed = re.sub("/+", "/", "/" + path)
    resolved = posixpath.normpath(collapsed)
    return path, collapsed, resolved, resolved.rstrip("/") + "/"
