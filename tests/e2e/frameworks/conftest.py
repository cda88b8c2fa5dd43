"""A site for each framework: its application behind waitress, mounted, over HTTPS as far as it knows, and a worker."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.serving import Site
from tests.support import bench

HOST = "shop.example.org"
MOUNT = "/shop"
ARGUMENTS = ("--url-scheme=https", "--no-clear-untrusted-proxy-headers")
APPS = Path(__file__).parent / "apps"


@contextmanager
def framework_site(app: str, **env: str) -> Iterator[Site]:
    """One application of `apps/`, served and worked."""
    with bench("embedded") as made:
        shutil.copytree(APPS, made.folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        if app.startswith("mysite"):
            migrate = [sys.executable, "manage.py", "migrate", "--run-syncdb", "--verbosity=0", "--skip-checks"]
            subprocess.run(migrate, cwd=made.folder, env={**made.env, "PATH": ""}, check=True)
        site = Site(made, app, env, prefix=MOUNT, arguments=ARGUMENTS)
        try:
            yield site
        finally:
            site.close()


@pytest.fixture(scope="module")
def make_site() -> Callable[..., AbstractContextManager[Any]]:
    """`framework_site`, for tests that want one of their own."""
    return framework_site
