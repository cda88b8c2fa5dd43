"""Lets a replay run as one of Django's users, who is loaded anew."""

from typing import Any

from ...submit.identity import gone


def become(request: Any, job: Any) -> bool:
    """Give the request its job's user; False where the job is refused: there is no such active user any more.

    Args:
        request: Django's.
        job: the job.
    """
    user = _load(job.identity)
    if user is None or not getattr(user, "is_active", True):
        job.refuse(gone(job.identity, exists=user is not None or _exists(job.identity)))
        return False
    # These are what AuthenticationMiddleware looks at before it asks the session.
    request.user = request._cached_user = user

    async def auser() -> Any:
        return user

    request.auser, request._acached_user = auser, user
    return True


def _load(key: str) -> Any:
    """The user, by the first backend that knows the key, as for a session; None: no backend lets the user in."""
    from django.contrib import auth  # its models: where there are users

    pk = auth.get_user_model()._meta.pk.to_python(key)
    found = (backend.get_user(pk) for backend in auth.get_backends() if hasattr(backend, "get_user"))
    return next((user for user in found if user is not None), None)


def _exists(key: str) -> bool:
    from django.contrib import auth

    return bool(auth.get_user_model()._base_manager.filter(pk=key).exists())
