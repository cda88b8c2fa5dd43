"""Asks the application's framework what it knows: which hosts it accepts, and where its login page is.

Only frameworks that the application has imported are asked: nothing depends on one.
"""

import re
import sys
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import urljoin, urlsplit

from ..kinds import BaseURL
from ..message.model import Message
from .walk import walk


def _django() -> Any:
    """Django's settings, where Django is in use."""
    module = sys.modules.get("django.conf")
    settings = getattr(module, "settings", None)
    return settings if settings is not None and settings.configured else None


def known_base_url() -> BaseURL:
    """What the application's URLs begin with, as far as Django says; without Django `http://localhost`.

    The host is the first plain entry of `ALLOWED_HOSTS`, or else the domain of the first that begins with a dot; the
    scheme is `https` where `SECURE_SSL_REDIRECT` is set. So Django takes the job.
    """
    settings = _django()
    if settings is None:
        return BaseURL()
    hosts = sorted((host for host in settings.ALLOWED_HOSTS if host.strip(".*")), key=lambda host: host.startswith("."))
    host = hosts[0].lstrip(".") if hosts else "localhost"
    scheme = "https" if settings.SECURE_SSL_REDIRECT else "http"
    return BaseURL(scheme, host, (settings.FORCE_SCRIPT_NAME or "").rstrip("/"))


def known_login_urls(app: Any) -> Iterator[str]:
    """Paths or URLs of the login page: Django's `LOGIN_URL`, and each `login_view` of Flask-Login.

    Args:
        app: the WSGI application.
    """
    settings = _django()
    if settings is not None:
        shortcuts: Any = sys.modules.get("django.shortcuts")
        yield str(shortcuts.resolve_url(settings.LOGIN_URL) if shortcuts is not None else settings.LOGIN_URL)
    if "flask_login" in sys.modules:
        for part in walk(app):
            manager = getattr(part, "login_manager", None)
            if manager is not None:
                views = [manager.login_view, *manager.blueprint_login_views.values()]
                yield from (_flask_url(part, view) for view in views if view)


def _flask_url(app: Any, view: str) -> str:
    if "/" in view:
        return view
    rule = next((rule.rule for rule in app.url_map.iter_rules(view)), view)
    return re.sub(r"<[^>]*>", "*", rule)


def leads_to(location: str, task: Message, pages: Iterable[str]) -> bool:
    """Whether the Location of a task's response is one of these pages: patterns of paths or of whole URLs."""
    there = urlsplit(urljoin(task.url, location))
    paths = {there.path, there.path.removeprefix(task.script_name)}
    ways = [way.rstrip("/") for way in (*paths, f"{there.scheme}://{there.netloc}{there.path}")]
    patterns = [page.partition("?")[0].rstrip("/") for page in pages]
    return any(fnmatchcase(way, pattern) for way in ways for pattern in patterns)


def host_trouble(host: str, app: Any) -> str:
    """Why Django or Flask refuses requests to this host; empty where neither does.

    Args:
        host: as in the header Host.
        app: the WSGI application.
    """
    whose = "" if _django_takes(host) else "Django's ALLOWED_HOSTS"
    whose = whose or ("" if _flask_takes(host, app) else "Flask's TRUSTED_HOSTS")
    return f"{whose} does not have {host!r}: set base_url (GEARWSGI_BASE_URL) for what has no request" if whose else ""


def _django_takes(host: str) -> bool:
    settings = _django()
    if settings is None:
        return True
    from django.http.request import split_domain_port, validate_host

    domain, _ = split_domain_port(host)
    allowed = settings.ALLOWED_HOSTS or ([".localhost", "127.0.0.1", "[::1]"] if settings.DEBUG else [])
    return bool(domain) and validate_host(domain, allowed)


def _flask_takes(host: str, app: Any) -> bool:
    flask: Any = sys.modules.get("flask")
    if flask is None:
        return True
    from werkzeug.sansio.utils import host_is_trusted

    trusted = [part.config.get("TRUSTED_HOSTS") for part in walk(app) if isinstance(part, flask.Flask)]
    return all(host_is_trusted(host, hosts) for hosts in trusted if hosts is not None)
