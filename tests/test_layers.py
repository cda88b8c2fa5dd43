"""Imports go down only, and the supervisor carries nothing of an application."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "gearwsgi"

LAYERS: list[set[str]] = [
    {"errors"},
    {
        "services", "message", "plain", "bodies", "signature", "policy", "payload", "settings", "redact", "log",
        "command",
    },
    {"connection", "channel", "loop", "pace", "replay", "spool"},
    {
        "client", "link", "outbox", "dead", "settle", "child", "worker", "status", "embedded", "server", "inhand",
    },
    {
        "tasks", "middleware", "loading", "forkserver", "generation", "supervisor", "testing", "memory", "overlay",
        "live",
    },
    {"cli", "contrib", "pytest_plugin", "__main__"},
]  # fmt: skip
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}

ALLOWED: set[tuple[str, str]] = set()
"""Upward imports that are meant; there are none."""


def part_of(path: Path) -> str:
    """What a file is called in the table: its module, or the package that it is in."""
    inside = path.relative_to(PACKAGE)
    return inside.parts[0] if len(inside.parts) > 1 else inside.stem


def imports(path: Path) -> Iterator[str]:
    """The parts of the package that a file imports, wherever in it."""
    package = ["gearwsgi", *path.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "gearwsgi" and len(parts) > 1 and parts[1] in LEVEL:
                yield parts[1]


FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


def test_every_module_has_its_layer() -> None:
    parts = {part_of(path) for path in FILES}
    assert parts == set(LEVEL), "the table above names each module once, and only what is there"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down_only(path: Path) -> None:
    own = part_of(path)
    upward = {found for found in imports(path) if LEVEL[found] > LEVEL[own] and (own, found) not in ALLOWED}
    assert not upward, f"{own} is in layer {LEVEL[own]} and imports {sorted(upward)} from above"


def test_no_two_modules_import_each_other() -> None:
    graph: dict[str, set[str]] = {}
    for path in FILES:
        graph.setdefault(part_of(path), set()).update(found for found in imports(path) if found != part_of(path))
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " imports ".join([*way, name])
        if name not in done:
            for other in sorted(graph.get(name, ())):
                visit(other, (*way, name))
            done.add(name)

    for name in sorted(graph):
        visit(name, ())


def loaded_by(module: str) -> set[str]:
    """The top-level packages that a fresh process has after an import."""
    code = f"import sys, {module}; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_supervisor_imports_neither_a_framework_nor_what_only_other_commands_need() -> None:
    loaded = loaded_by("gearwsgi.supervisor")
    assert "gearwsgi" in loaded
    frameworks = {"flask", "django", "pyramid", "bottle", "falcon", "cherrypy", "werkzeug", "jinja2"}
    assert not loaded & (frameworks | {"rich", "waitress", "watchfiles", "pytest", "sqlite3", "asyncio"})


def test_importing_the_package_imports_no_framework() -> None:
    loaded = loaded_by("gearwsgi")
    assert not loaded & {"flask", "django", "pyramid", "bottle", "falcon", "cherrypy", "rich", "click", "pytest"}
