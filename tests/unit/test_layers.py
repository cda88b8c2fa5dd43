"""Imports go one way through the folders."""

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "gearwsgi"


def order() -> list[set[str]]:
    """The rows of the table in `docs/inside.md`, the lowest first: modules at the root of the package, and folders."""
    table = (PACKAGE.parent / "docs" / "inside.md").read_text().partition("## The folders")[2]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    return [set(re.findall(r"`(\w+)`", row)) for row in rows]


LEVEL = {name: level for level, names in enumerate(order()) for name in names}
FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


def part_of(path: Path) -> str:
    """What a file is called in the table: its module, or the folder that it is in."""
    inside = path.relative_to(PACKAGE)
    return inside.parts[0] if len(inside.parts) > 1 else inside.stem


@functools.cache
def nodes(path: Path) -> tuple[ast.ClassDef | ast.Import | ast.ImportFrom | ast.Attribute, ...]:
    """What the tests look at of a file: its classes, its imports, and its attributes, wherever they are."""
    kinds = (ast.ClassDef, ast.Import, ast.ImportFrom, ast.Attribute)
    return tuple(node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, kinds))


@functools.cache
def imports(path: Path) -> frozenset[Path]:
    """The files of the package that a file imports, wherever in it."""
    return frozenset(_imports(path))


def _imports(path: Path) -> Iterator[Path]:
    package = ["gearwsgi", *path.relative_to(PACKAGE).parts[:-1]]
    for node in nodes(path):
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
    others = {part_of(found) for found in imports(path)} - {own}
    wrong = sorted(other for other in others if LEVEL[other] >= LEVEL[own])
    assert not wrong, f"{own} imports {wrong}, which the table in docs/inside.md does not allow"


def test_no_file_imports_itself_by_way_of_others() -> None:
    graph = {path: set(imports(path)) for path in FILES}
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
    found = [
        alias.name
        for node in nodes(path)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.name.startswith("_") and not alias.name.startswith("__") and alias.name != "_version"
    ]
    assert not found


OF_TUPLES = {"_replace", "_asdict", "_fields", "_make"}  # public, whatever their names look like
OF_OTHERS = {"request._stream", "processes._children"}  # Django's, and multiprocessing's


@functools.cache
def private_names(path: Path) -> frozenset[str]:
    """The private attributes that a file's classes have: methods, annotations, slots, and what `self` is given."""
    found: set[str] = set()
    for node in nodes(path):
        if isinstance(node, ast.ClassDef):
            found |= {each.name for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)}
            found |= {
                name.id for name in ast.walk(node) if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)
            }
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and is_own(node):
            found.add(node.attr)
    return frozenset(name for name in found if name.startswith("_") and not name.startswith("__")) - OF_TUPLES


@functools.cache
def all_private_names() -> frozenset[str]:
    """Those of all files."""
    return frozenset().union(*map(private_names, FILES))


def is_own(attribute: ast.Attribute) -> bool:
    return isinstance(attribute.value, ast.Name) and attribute.value.id in ("self", "cls")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_module_touches_the_private_attributes_of_anothers_objects(path: Path) -> None:
    # A name that only others' classes have is theirs; what no class of the package has is a framework's or Python's.
    theirs = all_private_names() - private_names(path)
    found = [
        f"line {node.lineno}: {ast.unparse(node)}"
        for node in nodes(path)
        if isinstance(node, ast.Attribute)
        and node.attr in theirs
        and not is_own(node)
        and ast.unparse(node) not in OF_OTHERS
    ]
    assert not found
