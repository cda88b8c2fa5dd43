"""Finds the pattern of the route that a path matches, in Flask, Django and Pyramid: metrics name paths by it."""

import functools
import sys
from collections.abc import Callable
from typing import Any, TypeAlias
from urllib.parse import unquote

from ..submit.walk import walk

Find: TypeAlias = Callable[[str, str], str]
"""From a method and a percent-encoded path to the pattern of the route; empty: none matches."""


def find_patterns(application: Any) -> Find | None:
    """What finds the patterns of an application's routes; None where its framework is not known."""
    for part in walk(application):
        for module, name, find in _KNOWN:
            # A framework that was not imported can't be the application's.
            kind = getattr(sys.modules.get(module), name, None)
            if kind is not None and isinstance(part, kind):
                return functools.partial(_ask, find, part)
    return None


def _ask(find: Callable[[Any, str, str], str], part: Any, method: str, path: str) -> str:
    try:
        return find(part, method, path.partition("?")[0])
    except Exception:  # a framework's "no such route", or a converter of the application's: there is no pattern then
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
