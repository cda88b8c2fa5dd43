"""Walks through the objects that a WSGI application consists of: those that it holds or wraps."""

import functools
from collections import deque
from collections.abc import Iterator
from typing import Any

_MAX_OBJECTS = 5000


def walk(app: Any, *, globals_too: bool = False) -> Iterator[Any]:
    """`app`, then every callable that it holds or wraps, the nearest first; for `globals_too` see `find_middleware`."""
    queue: deque[Any] = deque([app])
    seen: set[int] = set()
    while queue and len(seen) < _MAX_OBJECTS:
        current = queue.popleft()
        if id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        queue.extend(value for value in _parts(current, globals_too) if callable(value) and not isinstance(value, type))


def _parts(thing: Any, globals_too: bool) -> list[Any]:
    """What an object holds: its attributes, and a function's or a method's closure."""
    found = list(vars(thing).values()) if hasattr(thing, "__dict__") else []
    found += [getattr(thing, name, None) for name in getattr(type(thing), "__slots__", ())]
    owner = getattr(thing, "__self__", None)
    if owner is not None:
        found.append(owner)
    wrapped = getattr(thing, "__wrapped__", None)
    if wrapped is not None:
        found.append(wrapped)
    if isinstance(thing, functools.partial):
        found += [thing.func, *thing.args, *thing.keywords.values()]
    code = getattr(thing, "__code__", None)
    if globals_too and code is not None:
        names = getattr(thing, "__globals__", {})
        found += [names[name] for name in code.co_names if name in names]
    for cell in getattr(thing, "__closure__", None) or ():
        try:
            found.append(cell.cell_contents)
        except ValueError:  # a cell that is not filled yet
            continue
    return found
