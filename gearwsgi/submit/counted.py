"""A client that counts what it queues, for Prometheus's library: the setting `metrics`."""

import json
import time
from collections.abc import Callable, Iterable, Sequence

from ..errors import GearwsgiError
from ..message.limits import split_queue
from ..message.plain import is_plain
from ..settings import Settings
from ..telemetry.tally import Services, as_label, look
from ..telemetry.web import QUEUED, SUBMIT
from ..wire.payload import Submission
from .client import Client
from .servers import Receipt


class CountedClient(Client):
    """A client that also counts what it submits."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._services = Services()
        self._services.use(settings)

    def submit(self, submissions: Sequence[Submission], meanwhile: Callable[[], None] | None = None) -> list[Receipt]:
        """As the client's."""
        began = time.perf_counter()
        receipts: Iterable[Receipt | None] = ()
        try:
            receipts = found = super().submit(submissions, meanwhile)
            return found
        except GearwsgiError as error:
            receipts = error.receipts
            raise
        finally:
            SUBMIT.observe(time.perf_counter() - began)
            for submission, receipt in zip(submissions, receipts, strict=False):
                if receipt is not None:
                    service = self._services.label(_service(submission.payload))
                    QUEUED.labels(split_queue(submission.queue)[0], service).inc()


def _service(payload: bytes) -> str:
    """The service of a message, or of a plain call."""
    if is_plain(payload):
        return str(json.loads(payload).get("service", ""))
    return as_label(look(payload)[0])
