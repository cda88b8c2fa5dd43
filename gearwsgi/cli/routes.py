"""Asks an application's router (Flask's, Django's, Pyramid's) whether it knows a target; others can't be asked."""

import sys
from collections.abc import Callable
from typing import Any, TypeAlias
from urllib.parse import unquote

from ..message.targets import Target
from ..submit.walk import walk

Ask: TypeAlias = Callable[[Target], str]
"""From a target to what is wrong with it; empty: nothing is."""


def find_router(application: Any) -> tuple[str, Ask] | None:
    """The framework's name and its router in `application`; None where it can't be asked."""
    for part in walk(application):
        for module, name, ask in _KNOWN:
            # A framework that was not imported can't be the application's.
            kind = getattr(sys.modules.get(module), name, None)
            if kind is not None and isinstance(part, kind):
                return module.partition(".")[0].title(), lambda target, ask=ask, part=part: ask(part, target)
    return None


def _path(target: Target) -> str:
    return unquote(target.path.partition("?")[0])


def _ask_flask(app: Any, target: Target) -> str:
    from werkzeug.exceptions import HTTPException, MethodNotAllowed
    from werkzeug.routing import RequestRedirect

    try:
        app.url_map.bind("localhost").match(_path(target), target.method)
    except RequestRedirect as error:
        return f"Flask redirects it to {error.new_url.removeprefix('http://localhost')}: name that as the target"
    except MethodNotAllowed as error:
        return f"Flask has the path, but not for {target.method}; for {', '.join(sorted(error.valid_methods or ()))}"
    except HTTPException:
        return "Flask has no route for it"
    return ""


def _ask_django(handler: Any, target: Target) -> str:
    from django.urls import Resolver404, resolve

    path = _path(target)
    try:
        resolve(path)
    except Resolver404:
        try:
            resolve(path + "/")
        except Resolver404:
            return "Django has no URL for it"
        return f"Django has no URL for it, but one for {path}/: name that as the target"
    return ""


def _ask_pyramid(router: Any, target: Target) -> str:
    from pyramid.interfaces import IRootFactory, IRoutesMapper
    from pyramid.request import Request
    from pyramid.traversal import DefaultRootFactory

    request = Request.blank(target.path, method=target.method)
    request.registry = router.registry
    mapper = router.registry.queryUtility(IRoutesMapper)
    if mapper is not None and mapper(request)["route"] is not None:
        return ""
    if router.registry.queryUtility(IRootFactory) not in (None, DefaultRootFactory):
        return ""  # traversal may find it
    return "Pyramid has no route for it"


_KNOWN: tuple[tuple[str, str, Callable[[Any, Target], str]], ...] = (
    ("flask", "Flask", _ask_flask),
    ("django.core.handlers.wsgi", "WSGIHandler", _ask_django),
    ("pyramid.router", "Router", _ask_pyramid),
)
