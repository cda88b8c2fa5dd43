"""The keys of a request's environ that are ours, and the type of a WSGI application."""

from collections.abc import Callable, Iterable

WSGIApplication = Callable[..., Iterable[bytes]]

JOB_KEY = "gearwsgi.job"
"""The environ key of the job, in a replay only: no client can send it."""

KEYS = ("gearwsgi.gearman", "gearman")
"""The environ keys of `Gearman`. Only the first is a name as PEP 3333 wants it; the second is shorter to type."""
