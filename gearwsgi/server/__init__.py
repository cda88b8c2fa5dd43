"""The embedded job server: Gearman in one process, jobs in SQLite, on disk before JOB_CREATED."""

from .embedded import EmbeddedServer
from .main import serve

__all__ = ["EmbeddedServer", "serve"]
