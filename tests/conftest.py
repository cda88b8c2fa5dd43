"""Fixtures for all: a bench (job server, folder, workers) with each kind of job server."""

import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.support import GEARMAND, Bench, bench

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


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """See to it that what is one group runs in one process.

    pytest-xdist 3.8 writes the group into `_nodeid`, which pytest 9.2 does not read any more (its issue 1386): groups
    were left out without a word, and what they share was made in each process.
    """
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


@pytest.fixture(params=KINDS)
def site(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """A bench, once with gearmand and once with the embedded job server."""
    require(request.param)
    with bench(request.param) as made:
        yield made


@pytest.fixture
def embedded_site() -> Iterator[Bench]:
    """A bench with the embedded job server, for what does not depend on the kind."""
    with bench("embedded") as made:
        yield made
