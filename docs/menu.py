"""A hook of MkDocs: the pages of the frameworks, whichever there are, come into the menu by their headings."""

from pathlib import Path
from typing import Any


def on_config(config: Any) -> Any:
    """Put them after the tests."""
    folder = Path(config.docs_dir) / "frameworks"
    pages = sorted(folder.glob("*.md"), key=lambda path: (path.name != "index.md", path.name))
    menu = [{path.read_text().partition("\n")[0].lstrip("# "): f"frameworks/{path.name}"} for path in pages]
    if menu:
        config.nav.insert(4, {"Frameworks": menu})
    return config
