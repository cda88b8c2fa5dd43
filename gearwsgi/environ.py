"""What WSGI gives us: an application, and the keys of a request's environ that are ours."""

from collections.abc import Callable, Iterable

WSGIApplication = Callable[..., Iterable[bytes]]

JOB_KEY = "gearwsgi.job"
"""The environ key that only a replay has: no client can send it."""

KEYS = ("gearwsgi.gearman", "gearman")
"""Where it is in the environ; only the first is a name that PEP 3333 would have."""
