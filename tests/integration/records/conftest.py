"""Fixtures of the records: each test with SQLite and with a real PostgreSQL."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from gearwsgi import cli
from gearwsgi.settings import Settings, read_settings
from gearwsgi.state.records.opening import open_database
from gearwsgi.state.records.store import Store
from tests import postgres
from tests.support import free_port


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[postgres.PostgresServer]:
    postgres.require()
    server = postgres.PostgresServer()
    yield server
    server.close()


@pytest.fixture(params=["sqlite", "postgres"])
def records(request: pytest.FixtureRequest) -> str:
    """What the setting `records` is in this test."""
    if request.param == "sqlite":
        return "sqlite"
    server: postgres.PostgresServer = request.getfixturevalue("postgres_server")
    return server.make()


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
