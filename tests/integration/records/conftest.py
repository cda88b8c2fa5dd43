"""Fixtures of the records: each test with SQLite and with a real PostgreSQL; with a job server, with one of each."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from gearwsgi import cli
from gearwsgi.settings import Settings, read_settings
from gearwsgi.state.records.opening import open_database
from gearwsgi.state.records.store import Store
from tests import postgres
from tests.conftest import require
from tests.integration.records.stand import Stand, standing
from tests.support import free_port


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[postgres.PostgresServer]:
    postgres.require()
    server = postgres.PostgresServer()
    yield server
    server.close()


@contextlib.contextmanager
def _making(request: pytest.FixtureRequest, database: str) -> Iterator[str]:
    """What the setting `records` is."""
    if database == "sqlite":
        yield "sqlite"
        return
    server: postgres.PostgresServer = request.getfixturevalue("postgres_server")
    url = server.make()
    yield url
    server.give_back(url)


@pytest.fixture(params=["sqlite", "postgres"])
def records(request: pytest.FixtureRequest) -> Iterator[str]:
    """What the setting `records` is in this test."""
    with _making(request, request.param) as made:
        yield made


@pytest.fixture(scope="module", params=["gearmand-postgres", "embedded-sqlite"])
def pair(request: pytest.FixtureRequest) -> tuple[str, str]:
    """A job server and a database: what is tested with these depends on each of the two kinds, not on both together."""
    kind, _, database = request.param.partition("-")
    require(kind)
    return kind, database


@pytest.fixture
def stand(pair: tuple[str, str], request: pytest.FixtureRequest) -> Iterator[Stand]:
    """A job server and records of the test's own."""
    kind, database = pair
    with _making(request, database) as records, standing(kind, records) as made:
        yield made


@pytest.fixture(scope="module")
def busy(pair: tuple[str, str], request: pytest.FixtureRequest) -> Iterator[Stand]:
    """What the tests of a module share: a stand with a worker of two processes, which tries again at once."""
    kind, database = pair
    with _making(request, database) as records, standing(kind, records) as made:
        made.worker("--workers", "2", "--queues", "job,mail", backoff_min=0.0, backoff_max=0.0)
        yield made


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What shares a stand runs in one process."""
    for item in items:
        if isinstance(item, pytest.Function) and {"busy", "pair"} <= set(item.fixturenames):
            item.add_marker(pytest.mark.xdist_group(f"{item.path.stem}-{item.callspec.params['pair']}"))


@pytest.fixture
def settings(records: str, tmp_path: Path) -> Settings:
    return read_settings({"state_dir": tmp_path / "state", "records": records}, {})


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    database = open_database(settings)
    assert database is not None
    yield Store(database)
    database.close()


@pytest.fixture
def environment(settings: Settings, records: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands go by this test's records; no job server is there."""
    monkeypatch.setenv("GEARWSGI_STATE_DIR", str(settings.state_dir))
    monkeypatch.setenv("GEARWSGI_RECORDS", records)
    monkeypatch.setenv("GEARMAN_SERVERS", f"127.0.0.1:{free_port()}")


class Answer(NamedTuple):
    """How a command ended, and what it wrote."""

    code: int
    out: str
    err: str


@pytest.fixture
def run(capfdbinary: pytest.CaptureFixture[bytes]) -> Callable[..., Answer]:
    """Run `gearwsgi` with these arguments."""

    def run(*arguments: str) -> Answer:
        with pytest.raises(SystemExit) as ended:
            cli.main(arguments)
        out, err = capfdbinary.readouterr()
        return Answer(int(ended.value.code or 0), out.decode(), err.decode())

    return run
