"""Background work for any WSGI application: requests queued on Gearman, replayed through the same app."""

__version__ = "0.1.0"

from .errors import GearwsgiError, UnknownService
from .middleware import GearmanMiddleware
from .replay import Job, Retry
from .tasks import Task

__all__ = ["GearmanMiddleware", "GearwsgiError", "Job", "Retry", "Task", "UnknownService", "__version__"]
