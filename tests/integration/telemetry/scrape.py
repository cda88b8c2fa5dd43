"""What a scraper sees of a worker."""

import urllib.error
import urllib.request
from collections.abc import Iterator

from prometheus_client.parser import text_string_to_metric_families

from tests.support import Bench, Worker, free_port, until


class Scraper:
    """A worker with metrics, and who asks it for them.

    Args:
        bench: what the worker runs on.
        arguments: the worker's.
        app: what it runs.
        env: added to its environment.
    """

    def __init__(self, bench: Bench, *arguments: str, app: str = "kitchen:application", **env: str) -> None:
        self.port = free_port()
        self.worker: Worker = bench.worker("--metrics", str(self.port), *arguments, app=app, env=env)

    def get(self, path: str) -> tuple[int, str]:
        """Status and text of a page."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=30) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def samples(self) -> Iterator[tuple[str, dict[str, str], float]]:
        """All that is told now."""
        for family in text_string_to_metric_families(self.get("/metrics")[1]):
            for sample in family.samples:
                yield sample.name, sample.labels, sample.value

    def sum(self, wanted: str, **labels: str) -> float:
        """The sum of all samples with this name and these labels."""
        found = [value for name, said, value in self.samples() if name == wanted and labels.items() <= said.items()]
        assert found, f"no {wanted}{labels} in {self.get('/metrics')[1]}"
        return sum(found)

    def until(self, number: float, wanted: str, **labels: str) -> None:
        """Wait until that sum is this number."""
        last: list[float] = []

        def reached() -> bool:
            last[:] = [sum(v for n, said, v in self.samples() if n == wanted and labels.items() <= said.items())]
            return last == [number]

        try:
            until(reached, pause=0.1)
        except AssertionError:
            raise AssertionError(f"{wanted}{labels} is {last[0]}, not {number}\n{self.worker.log[-3000:]}") from None
