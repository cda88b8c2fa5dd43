"""The frameworks' pages in the documentation: their code runs, and the table says what is true."""

import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

PAGES = Path(__file__).parents[3] / "docs" / "frameworks"
FILE = re.compile(r"<!-- file: (\S+) -->\n```python\n(.*?)\n```", re.DOTALL)
DISTRIBUTIONS = {
    "flask": "Flask",
    "django": "Django",
    "pyramid": "pyramid",
    "bottle": "bottle",
    "falcon": "falcon",
    "cherrypy": "CherryPy",
    "webob": "WebOb",
}
RUN = """
import sys
from webtest import TestApp
from gearwsgi.app.loading import load_application
from gearwsgi.testing import capture

application, _ = load_application(sys.argv[1] + ":application")
with capture(application) as tasks:
    assert TestApp(application).get("/index/index?name=Zoe").text == "queued"
    (run,) = tasks.run()
    assert run.fate == "done", run
    print(run.body.decode())
"""


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_the_code_of_a_page_runs(name: str, tmp_path: Path) -> None:
    files = FILE.findall((PAGES / f"{name}.md").read_text())
    assert files
    for path, text in files:
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    modules = ["mysite.wsgi"] if name == "django" else [path.removesuffix(".py") for path, _ in files]
    for module in modules:
        done = subprocess.run(
            [sys.executable, "-c", RUN, module], cwd=tmp_path, capture_output=True, text=True, timeout=60
        )
        assert done.stdout.strip() == "Hello Zoe", done.stderr


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_the_table_names_the_version_that_is_tested(name: str) -> None:
    (row,) = [line for line in (PAGES / "index.md").read_text().splitlines() if f"]({name}.md)" in line and "|" in line]
    named = re.findall(r"\d+\.\d+", row.split("|")[2])
    installed = version(DISTRIBUTIONS[name])
    assert installed.partition(".")[0] in {number.partition(".")[0] for number in named}, (row, installed)


def test_every_framework_has_a_page_and_every_page_a_framework() -> None:
    assert {path.stem for path in PAGES.glob("*.md")} == {*DISTRIBUTIONS, "index", "django-tasks"}
