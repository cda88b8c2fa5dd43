"""Identities: whose request is in hand, and whether a task may still run as that user.

Users are Django's and Flask-Login's. An identity travels as `django:KEY` or `flask-login:KEY`. Only frameworks that the
application has imported are asked.
"""

import sys
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from ..environ import JOB_KEY, KEYS, WSGIApplication
from ..errors import InvalidTask
from ..message.fields import DJANGO, FLASK_LOGIN, is_identity
from ..settings import Settings
from .walk import walk

USER_KEY = "gearwsgi.user"
"""The environ key of the user, where that was found out before the application is called."""
NOT_ALLOWED = "no longer allowed"
_MIDDLEWARE = "gearwsgi.contrib.django.JobMiddleware"
_UNSAFE = (
    "an identity needs secret_keys where others can reach the job server: whoever does could run anything as anybody"
)


def check_safe(settings: Settings) -> None:
    """Check that nobody else can write an identity into a message.

    Raises:
        InvalidTask: others could.
    """
    if not settings.keeps_identities:
        raise InvalidTask(_UNSAFE)


def find_user(environ: dict[str, Any]) -> str:
    """The identity of the user whose request is in hand; empty: nobody's.

    Raises:
        InvalidTask: no framework can tell.
    """
    if USER_KEY in environ:
        return str(environ[USER_KEY])
    finder = getattr(environ.get(KEYS[0]), "user_key", None)
    if finder is not None:
        return _named(DJANGO, finder())
    flask, login = sys.modules.get("flask"), sys.modules.get("flask_login")
    has_login = flask is not None and flask.has_request_context() and hasattr(flask.current_app, "login_manager")
    if login is not None and has_login:
        return _named(FLASK_LOGIN, _flask_key(login.current_user))
    raise InvalidTask(
        "identity='user' is known of Django, with gearwsgi.contrib.django.JobMiddleware, and of Flask-Login: "
        "neither has this request"
    )


def find_user_at_door(app: WSGIApplication, environ: dict[str, Any]) -> str:
    """The identity of a request that no framework has seen yet, from its session; empty: nobody's.

    Args:
        app: the wrapped application.
        environ: the request's; it stays as it is.
    """
    flask_app = next(_flask_apps(app), None)
    if flask_app is not None:
        with flask_app.request_context(environ.copy()):
            return _named(FLASK_LOGIN, _flask_key(sys.modules["flask_login"].current_user))
    auth: Any = sys.modules.get("django.contrib.auth")
    if auth is None:
        return ""
    from django.conf import settings
    from django.core.handlers.wsgi import WSGIRequest

    _refresh_django()
    request: Any = WSGIRequest(environ.copy())
    store = import_module(settings.SESSION_ENGINE).SessionStore
    request.session = store(request.COOKIES.get(settings.SESSION_COOKIE_NAME))
    try:
        return _named(DJANGO, django_key(auth.get_user(request)))
    finally:
        _refresh_django()


def django_key(user: Any) -> str:
    """The key of a user of Django's; empty: the user is anonymous."""
    return str(user._meta.pk.value_to_string(user)) if user.is_authenticated else ""


def _flask_key(user: Any) -> str:
    return str(user.get_id()) if user is not None and user.is_authenticated else ""


def _named(scheme: str, key: str) -> str:
    if not key:
        return ""
    if not is_identity(f"{scheme}:{key}"):
        raise InvalidTask("the user's key can't travel: it has over 200 characters, or a control character")
    return f"{scheme}:{key}"


# -- in the replay -----------------------------------------------------------------------------------------------------


def why_not(app: WSGIApplication, settings: Settings, environ: dict[str, Any], job: Any) -> str:
    """Why a job may not run; empty: it may.

    Args:
        app: the wrapped application.
        settings: the middleware's.
        environ: the replay's.
        job: the job.

    Raises:
        Exception: what `authorize` raises: the attempt has failed.
    """
    trouble = _prepare(app, job) if job.identity is not None else ""
    if trouble or settings.authorize is None:
        return trouble
    _refresh_django()  # `authorize` may use the database, and no request has begun
    return "" if settings.authorize(environ, job) else NOT_ALLOWED


def _prepare(app: WSGIApplication, job: Any) -> str:
    """Have the application's framework load the job's user; the reason why it can't, or empty."""
    if job.scheme == DJANGO:
        return "" if _has_middleware() else f"it is to run as a user, and {_MIDDLEWARE} is not in MIDDLEWARE"
    apps = list(_flask_apps(app))
    for each in apps:
        hooks = each.before_request_funcs.setdefault(None, [])
        if _become not in hooks:
            hooks.insert(0, _become)
    return "" if apps else "it is to run as a user of Flask-Login, and the application has none"


def _has_middleware() -> bool:
    conf, loading = sys.modules.get("django.conf"), sys.modules.get("django.utils.module_loading")
    if conf is None or loading is None or not conf.settings.configured:
        return False
    base = loading.import_string(_MIDDLEWARE)
    known = [loading.import_string(name) for name in conf.settings.MIDDLEWARE]
    return any(isinstance(each, type) and issubclass(each, base) for each in known)


def _flask_apps(app: WSGIApplication) -> Iterator[Any]:
    """The Flask applications that use Flask-Login."""
    flask: Any = sys.modules.get("flask")
    if flask is None or "flask_login" not in sys.modules:
        return
    for part in walk(app):
        if isinstance(part, flask.Flask) and hasattr(part, "login_manager"):
            yield part


def _become() -> tuple[str, int] | None:
    """Runs before each request of a Flask application: if it is a job of a user, log that user in."""
    flask: Any = sys.modules["flask"]
    job = flask.request.environ.get(JOB_KEY)
    if job is None or job.identity is None:
        return None
    manager = flask.current_app.login_manager
    user = manager._user_callback(job.identity)
    if user is None or not user.is_active:
        job.refuse(gone(job.identity, exists=user is not None))
        return "", 403
    manager._update_request_context_with_user(user)
    return None


def gone(key: str, *, exists: bool) -> str:
    """The reason why a job can't run as the user that it is for."""
    return f"user {key} is not {'active' if exists else 'there'} any more"


def _refresh_django() -> None:
    """Have Django close connections that are too old or broken, as it does around each request."""
    module: Any = sys.modules.get("django.db")
    if module is not None and sys.modules["django.conf"].settings.configured:
        module.close_old_connections()
