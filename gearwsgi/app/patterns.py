"""The pattern of the route that a path is for, asked of Flask, Django and Pyramid: a name for it that is one of few."""

import functools
import sys
from collections.abc import Callable
from typing import Any, TypeAlias
from urllib.parse import unquote

from ..submit.walk import walk

Find: TypeAlias = Callable[[str, str], str]
"""From a method and a path, percent-encoded, to the pattern of the route; empty: there is none."""


def find_patterns(application: Any) -> Find | None:
    """What knows the patterns of the application's routes; None where it can't be asked."""
    for part in walk(application):
        for module, name, find in _KNOWN:
            # What the application has not imported, it is not made with.
            kind = getattr(sys.modules.get(module), name, None)
            if kind is not None and isinstance(part, kind):
                return functools.partial(_ask, find, part)
    return None


def _ask(find: Callable[[Any, str, str], str], part: Any, method: str, path: str) -> str:
    try:
        return find(part, method, path.partition("?")[0])
    except Exception:  # a framework's "no such route", or a converter of the application's: it has no pattern then
        return ""


def _flask(app: Any, method: str, path: str) -> str:
    rule, _ = app.url_map.bind("localhost").match(unquote(path), method, return_rule=True)
    return str(rule.rule)


def _django(handler: Any, method: str, path: str) -> str:
    from django.urls import resolve

    return "/" + str(resolve(unquote(path)).route)


def _pyramid(router: Any, method: str, path: str) -> str:
    from pyramid.interfaces import IRoutesMapper
    from pyramid.request import Request

    request = Request.blank(path, method=method)
    request.registry = router.registry
    route = router.registry.getUtility(IRoutesMapper)(request)["route"]
    return "/" + str(route.pattern).removeprefix("/")


_KNOWN: tuple[tuple[str, str, Callable[[Any, str, str], str]], ...] = (
    ("flask", "Flask", _flask),
    ("django.core.handlers.wsgi", "WSGIHandler", _django),
    ("pyramid.router", "Router", _pyramid),
)
