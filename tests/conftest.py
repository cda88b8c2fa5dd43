"""Fixtures for all: a bench (job server, folder, workers) with each kind of job server."""

import os
import sys
from collections.abc import Generator, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.support import GEARMAND, Bench, Spares

KINDS = ("gearmand", "embedded")

# Hundreds of processes are started, and each would compile the whole package where none may keep the bytecode.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# A busy machine is no failure: nothing is asserted on time.
settings.register_profile("gearwsgi", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("many", settings.get_profile("gearwsgi"), max_examples=5000)
settings.load_profile("gearwsgi")


def kinds(group: str) -> list[Any]:
    """Both kinds, as parameters of a fixture that tests share: those of the same one run in one process.

    Args:
        group: names the fixture, or the module.
    """
    return [pytest.param(kind, marks=pytest.mark.xdist_group(f"{group}-{kind}")) for kind in KINDS]


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Generator[None, None, None]:
    """See to it that what is one group runs in one process, and what shares a bench is one.

    pytest-xdist 3.8 writes the group into `_nodeid`, which pytest 9.2 does not read any more (its issue 1386): groups
    were left out without a word, and what they share was made in each process.
    """
    for item in items:
        if isinstance(item, pytest.Function) and "_kept" in item.fixturenames:
            item.add_marker(pytest.mark.xdist_group(f"{item.path.stem}-{item.callspec.params['_kept']}"))
    yield
    if not getattr(config.option, "loadgroup", False):
        return  # no process of `--dist loadgroup`
    for item in items:
        if item.get_closest_marker("xdist_group"):
            with_group: str = item._nodeid  # type: ignore[attr-defined]
            if item.nodeid != with_group:
                item._id = item._id.parse(with_group)  # type: ignore[attr-defined]
            assert "@" in item.nodeid, f"{item.nodeid} is in no group of pytest-xdist's"


def require(kind: str) -> None:
    """Skip where gearmand is not on the machine; in CI that is a failure."""
    if kind == "gearmand" and GEARMAND is None:
        if os.environ.get("CI"):
            pytest.fail("gearmand is not installed; CI must test with it")
        pytest.skip("gearmand is not installed: tested with the embedded job server alone")


@pytest.fixture(scope="session")
def spares() -> Iterator[Spares]:
    made = Spares()
    yield made
    made.close()


@pytest.fixture(params=KINDS)
def site(request: pytest.FixtureRequest, spares: Spares) -> Iterator[Bench]:
    """A bench, once with gearmand and once with the embedded job server."""
    require(request.param)
    with spares.bench(request.param) as made:
        yield made


@pytest.fixture(scope="module", params=KINDS)
def _kept(request: pytest.FixtureRequest, spares: Spares) -> Iterator[Bench]:
    require(request.param)
    with spares.bench(request.param) as made:
        made.worker("--workers", "1")
        yield made


@pytest.fixture
def busy(_kept: Bench) -> Bench:
    """A bench that the tests of a module share, with a worker; it shows nothing of the tests before."""
    _kept.forget()
    return _kept


@pytest.fixture
def embedded_site(spares: Spares) -> Iterator[Bench]:
    """A bench with the embedded job server, for what does not depend on the kind."""
    with spares.bench("embedded") as made:
        yield made
