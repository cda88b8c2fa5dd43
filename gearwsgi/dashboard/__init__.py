"""The dashboard: see and steer tasks from a browser. A WSGI application to mount anywhere."""

from ..message.response import response_class

response_class()  # the first import of WebOb is done there, for it may warn

from .access import on_this_machine  # noqa: E402
from .application import Dashboard  # noqa: E402

__all__ = ["Dashboard", "on_this_machine"]
