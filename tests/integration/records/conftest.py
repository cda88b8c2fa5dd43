"""Fixtures of the records: each test with SQLite and with a real PostgreSQL."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from gearwsgi.settings import Settings, read_settings
from gearwsgi.state.records.opening import open_database
from gearwsgi.state.records.store import Store
from tests import postgres


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
