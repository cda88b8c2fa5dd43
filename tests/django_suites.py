"""Django's own tests, on our backend: `python -m tests.django_suites [--server gearmand|embedded] [--checkout FOLDER]`.

Django's source on PyPI has tests of its Tasks (tests/tasks/). They run with our backend in the places of
ImmediateBackend and DummyBackend (tests/apps/suites), a real job server and a real worker: on the newest Django, and on
Django 5.2 with django-tasks, which stands for Django's Tasks there. That package has its own tests in its repository
only: with a checkout of it these run, too.

Each test has to pass, but for those that are left out below: they look into another backend. One of these that passes
after all is named, too; the exit code is 1 then, and where any other fails.

`python3.13` and `python3.11` have to be on the path, and a package index in reach. It takes some minutes. All that it
makes is in build/ and in a temporary folder.
"""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import click
from rich.console import Console
from rich.table import Table

from tests.support import APPS, GEARMAND, ROOT, JobServer, Worker

HOME = ROOT / "build" / "django-suites"
NEWEST, OLDER = "3.13", "3.11"
SKIPPED = "skipped: "
"""What the outcome of a test begins with that the suite itself leaves out."""

DUMMY, IMMEDIATE = "test_dummy_backend.DummyBackendTestCase", "test_immediate_backend.ImmediateBackendTestCase"
WARNS = "ours warns where a worker has to be told the queues"
NO_RESULTS = "ImmediateBackend has no results to be asked for, and ours has"
OTHER_BACKENDS = {
    f"{DUMMY}.test_check": WARNS,
    f"{DUMMY}.test_clear": "empties the list that DummyBackend keeps",
    f"{DUMMY}.test_refresh_result": "changes a result in the list that DummyBackend keeps",
    f"{DUMMY}.test_refresh_result_async": "changes a result in the list that DummyBackend keeps",
    f"{IMMEDIATE}.test_cannot_get_result": NO_RESULTS,
    f"{IMMEDIATE}.test_cannot_refresh_result": NO_RESULTS,
    f"{IMMEDIATE}.test_cannot_pass_run_after": "ImmediateBackend takes no run_after, and ours does",
    f"{IMMEDIATE}.test_throws_keyboard_interrupt": "ImmediateBackend runs a task in the caller's process",
}
"""Tests that are not ours to pass, and why."""
NO_PICKLE = "tasks of django-tasks can't be pickled"
TEXT = "django-tasks says it in other words"
OTHER_RELEASE = {
    f"{DUMMY}.test_validate_disallowed_async_task": TEXT,
    "test_custom_backend.CustomBackendTestCase.test_enqueue_async_task_on_non_async_backend": TEXT,
    "test_custom_backend.CustomBackendTestCase.test_no_enqueue": "Python 3.11 says it in other words",
    "test_tasks.TaskTestCase.test_pickle_task": NO_PICKLE,
    "test_tasks.TaskTestCase.test_pickle_task_result": NO_PICKLE,
    "test_tasks.TaskTestCase.test_unpickle_arbitrary_string": NO_PICKLE,
    "test_tasks.TaskTestCase.test_unpickle_non_task_object": NO_PICKLE,
    "test_tasks.TaskTestCase.test_run_after_in_decorator": TEXT,
}
"""Tests of Django's that django-tasks does not pass, with whichever backend."""
THEIR_OWN = {
    f"{IMMEDIATE}.test_check": WARNS,
    f"{IMMEDIATE}.test_get_result_from_different_request": NO_RESULTS,
}
"""Tests that django-tasks has beside Django's, and that are not ours to pass."""


@dataclass(frozen=True)
class Suite:
    """Tests, and where they run.

    Attributes:
        name: of what they are.
        python: the environment's Python.
        packages: what is installed in it.
        folder: what the tests are imported from.
        label: which tests, as Django's runner names them.
        left_out: the ends of tests' names that are not ours to pass, and why.
        urls: the project's URLconf.
    """

    name: str
    python: str
    packages: tuple[str, ...]
    folder: Path
    label: str
    left_out: Mapping[str, str]
    urls: str = "suites.settings"


def suites(folder: Path, checkout: Path | None) -> Iterator[Suite]:
    """What is to be run.

    Args:
        folder: where Django's source is put.
        checkout: of django-tasks; None: its own tests are not run.
    """
    pip = [interpreter(NEWEST), "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
    subprocess.run([*pip, "--dest", folder, "django>=6.1"], check=True)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    release = archive.name.removesuffix(".tar.gz")
    source = folder / release / "tests"
    older = ("django<6", "django-tasks")
    yield Suite(f"{release}, tests/tasks", NEWEST, (str(archive),), source, "tasks", OTHER_BACKENDS)
    yield Suite(f"{release}, tests/tasks", OLDER, older, source, "tasks", OTHER_BACKENDS | OTHER_RELEASE)
    if checkout is not None:
        yield Suite(
            "django-tasks, tests", OLDER, older, checkout.resolve(), "tests", OTHER_BACKENDS | THEIR_OWN, "tests.urls"
        )


def interpreter(version: str) -> Path:
    """An environment's Python; the environment is made where there is none."""
    home = HOME / version
    if not (home / "bin" / "python").exists():
        found = shutil.which(f"python{version}")
        if found is None:
            raise click.ClickException(f"python{version} is not on the path")
        subprocess.run([found, "-m", "venv", home], check=True)
    return home / "bin" / "python"


class Row(NamedTuple):
    """What a suite came to."""

    suite: str
    versions: str
    python: str
    ran: int
    passed: int
    left_out: int
    bad: int
    """Tests that failed, or passed although they are left out."""


def run(suite: Suite, kind: str) -> Row:
    """Run a suite, and print by name which tests have not passed."""
    python = interpreter(suite.python)
    pip = [python, "-m", "pip", "install", "--quiet", "--upgrade"]
    subprocess.run([*pip, "--editable", ROOT, *suite.packages], check=True)
    with tempfile.TemporaryDirectory(prefix="gearwsgi-suites-") as folder:
        outcomes = _outcomes(suite, kind, python, Path(folder))
    listed = subprocess.run([python, "-m", "pip", "list", "--format=json"], check=True, capture_output=True).stdout
    names = ("Django", "django-tasks")
    there = [f"{each['name']} {each['version']}" for each in json.loads(listed) if each["name"] in names]
    return report(suite, ", ".join([*there, kind]), outcomes)


def _outcomes(suite: Suite, kind: str, python: Path, folder: Path) -> dict[str, str | None]:
    """What each test came to; None: it has passed."""
    log, outcomes = folder / "tasks.log", folder / "outcomes.json"
    log.touch()
    server = JobServer(kind, folder / kind).start()
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(APPS), str(suite.folder)]),
        "DJANGO_SETTINGS_MODULE": "suites.settings",
        "GEARMAN_SERVERS": server.address,
        "GEARWSGI_STATE_DIR": str(folder / "state"),
        "SUITES_LOG": str(log),
        "SUITES_URLCONF": suite.urls,
    }
    try:
        worker = Worker(folder, "suites.wsgi:application", "--queues", "finished", env=env, python=str(python))
        try:
            worker.ready()
            output = HOME / f"{suite.label}-{suite.python}.log"
            with output.open("wb") as file:
                command = [python, "-m", "suites.run", outcomes, suite.label]
                done = subprocess.run(command, cwd=folder, env=env, stdout=file, stderr=file)
            print(f"\n{suite.name}: the output is in {output.relative_to(ROOT)}", flush=True)
            if done.returncode:
                raise click.ClickException(output.read_text(errors="replace")[-5000:])
        finally:
            worker.kill()
    finally:
        server.stop()
    found: dict[str, str | None] = json.loads(outcomes.read_text())
    return found


def report(suite: Suite, versions: str, outcomes: Mapping[str, str | None]) -> Row:
    """Print by name which tests have not passed."""
    failed = {name: said for name, said in outcomes.items() if said is not None}
    reasons = {name: why for name in outcomes for end, why in suite.left_out.items() if name.endswith(f".{end}")}
    reasons |= {name: said for name, said in failed.items() if said.startswith(SKIPPED)}
    bad = [name for name in failed if name not in reasons]
    stale = [name for name in reasons if name not in failed]
    left_out = sorted(reasons.keys() & failed.keys())
    print(f"{versions}, Python {suite.python}")
    for name in left_out:
        print(f"  left out  {name}: {reasons[name]}")
    for name in bad:
        print(f"  FAILED    {name}: {failed[name]}")
    for name in stale:
        print(f"  PASSED    {name}: it is to be left out no longer")
    sys.stdout.flush()
    passed = len(outcomes) - len(failed)
    return Row(suite.name, versions, suite.python, len(outcomes), passed, len(left_out), len(bad) + len(stale))


@click.command(help=__doc__)
@click.option("--server", type=click.Choice(["gearmand", "embedded"]), default="gearmand" if GEARMAND else "embedded")
@click.option("--checkout", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Of django-tasks.")
def main(server: str, checkout: Path | None) -> None:
    with tempfile.TemporaryDirectory(prefix="gearwsgi-suites-") as folder:
        rows = [run(suite, server) for suite in suites(Path(folder), checkout)]
    table = Table("suite", "versions", "Python", "ran", "passed", "left out", "failed")
    for row in rows:
        table.add_row(*map(str, row))
    Console(width=120).print(table)
    sys.exit(0 if all(row.ran and not row.bad for row in rows) else 1)


if __name__ == "__main__":
    main()
