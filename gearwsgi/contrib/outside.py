"""Tasks from outside of a request, where the framework's configuration says what URLs look like."""

from ..submit.client import Client
from ..submit.tasks import Gearman


class OutsideGearman(Gearman):
    """`application.gearman` with another host than `localhost`: host checks pass, and URLs built in a job are right.

    Args:
        client: the middleware's.
        scheme: `http` or `https`.
        host: the Host that its tasks have.
        script_name: where the application is mounted.
    """

    __slots__ = ()

    def __init__(self, client: Client, scheme: str, host: str, script_name: str) -> None:
        super().__init__(client, None)
        self._scheme = scheme
        self._host = host
        self._script_name = script_name
