"""Imports go one way through the folders."""

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = Path(__file__).parents[2] / "gearwsgi"


def order() -> list[set[str]]:
    """The rows of the table in `docs/inside.md`, the lowest first: modules at the root of the package, and folders."""
    table = (PACKAGE.parent / "docs" / "inside.md").read_text().partition("## The folders")[2]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    return [set(re.findall(r"`(\w+)`", row)) for row in rows]


LEVEL = {name: level for level, names in enumerate(order()) for name in names}
OF_TUPLES = {"_replace", "_asdict", "_fields", "_make"}  # public, whatever their names look like
OF_OTHERS = {"request._stream", "processes._children"}  # Django's, and multiprocessing's
FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


def part_of(path: Path) -> str:
    """What a file is called in the table: its module, or the folder that it is in."""
    inside = path.relative_to(PACKAGE)
    return inside.parts[0] if len(inside.parts) > 1 else inside.stem


class Facts(NamedTuple):
    """What the tests look at of a file.

    Attributes:
        imports: the files of the package that it imports, wherever in it.
        private_imports: private names of others that it imports.
        private_names: the private attributes of its classes: methods, annotations, slots, and what `self` is given.
        touches: the private attributes that it uses of anything but `self` and `cls`, and where.
    """

    imports: frozenset[Path]
    private_imports: tuple[str, ...]
    private_names: frozenset[str]
    touches: tuple[tuple[str, str, str], ...]


@functools.cache  # what is found, and not the tree: that is large
def facts(path: Path) -> Facts:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    return Facts(
        frozenset(_imports(path, nodes)),
        tuple(_private_imports(nodes)),
        frozenset(name for name in _attributes(nodes) if is_private(name)) - OF_TUPLES,
        tuple(
            (node.attr, f"line {node.lineno}: {ast.unparse(node)}", ast.unparse(node))
            for node in nodes
            if isinstance(node, ast.Attribute) and is_private(node.attr) and not is_own(node)
        ),
    )


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def _imports(path: Path, nodes: list[ast.AST]) -> Iterator[Path]:
    package = ["gearwsgi", *path.relative_to(PACKAGE).parts[:-1]]
    for node in nodes:
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            found = file_of(name) or file_of(name.rpartition(".")[0])
            if found is not None and found not in (path, PACKAGE / "__init__.py"):
                yield found


def _private_imports(nodes: list[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            yield from (alias.name for alias in node.names if is_private(alias.name) and alias.name != "_version")


def _attributes(nodes: list[ast.AST]) -> Iterator[str]:
    """Attributes that the classes of a file have, whatever their names."""
    for node in nodes:
        if isinstance(node, ast.ClassDef):
            yield from (each.name for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef))
            for name in ast.walk(node):
                if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store):
                    yield name.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and is_own(node):
            yield node.attr


def is_own(attribute: ast.Attribute) -> bool:
    return isinstance(attribute.value, ast.Name) and attribute.value.id in ("self", "cls")


@functools.cache
def file_of(module: str) -> Path | None:
    """The file of a dotted module of the package, or None."""
    path = PACKAGE.parent / module.replace(".", "/")
    candidates = (path.with_suffix(".py"), path / "__init__.py")
    return next((each for each in candidates if each.is_relative_to(PACKAGE) and each.is_file()), None)


def test_the_table_names_each_folder_and_each_module_beside_them_once() -> None:
    assert {part_of(path) for path in FILES} == set(LEVEL)
    assert sum(map(len, order())) == len(LEVEL)


def test_no_more_than_a_dozen_modules_lie_beside_the_folders() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= 12


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down_the_table_only(path: Path) -> None:
    own = part_of(path)
    others = {part_of(found) for found in facts(path).imports} - {own}
    wrong = sorted(other for other in others if LEVEL[other] >= LEVEL[own])
    assert not wrong, f"{own} imports {wrong}, which the table in docs/inside.md does not allow"


def test_no_file_imports_itself_by_way_of_others() -> None:
    graph = {path: facts(path).imports for path in FILES}
    done: set[Path] = set()

    def visit(path: Path, way: tuple[Path, ...]) -> None:
        assert path not in way, " imports ".join(str(each.relative_to(PACKAGE)) for each in (*way, path))
        if path not in done:
            for other in sorted(graph.get(path, ())):
                visit(other, (*way, path))
            done.add(path)

    for path in FILES:
        visit(path, ())


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_module_imports_the_private_names_of_another(path: Path) -> None:
    assert not facts(path).private_imports


@functools.cache
def all_private_names() -> frozenset[str]:
    """Those of all files."""
    return frozenset().union(*(facts(path).private_names for path in FILES))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_module_touches_the_private_attributes_of_anothers_objects(path: Path) -> None:
    # A name that only others' classes have is theirs; what no class of the package has is a framework's or Python's.
    theirs = all_private_names() - facts(path).private_names
    found = [where for name, where, text in facts(path).touches if name in theirs and text not in OF_OTHERS]
    assert not found
