"""The embedded job server: Gearman in one process, jobs in SQLite, on disk before JOB_CREATED."""

from gearwsgi.server.embedded import EmbeddedServer
from gearwsgi.server.main import serve

__all__ = ["EmbeddedServer", "serve"]
