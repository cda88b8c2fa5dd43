"""Tables for the terminal. A command imports this only where it prints one: rich takes longer to load than all else."""

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..log import clean


def console() -> Console:
    """A console as wide as the terminal; a pipe gets lines of any length."""
    output = Console(soft_wrap=True, highlight=False)
    return output if output.is_terminal else Console(soft_wrap=True, highlight=False, width=100_000)


def make_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, keep: Sequence[int] = ()) -> Table:
    """A plain table, whose cells are shown as they are, whatever is in them.

    Args:
        columns: their titles.
        rows: their cells; control characters are shown as escapes, markup is text.
        keep: places of columns that are never cut: ids, handles.
    """
    table = Table(box=box.SIMPLE, pad_edge=False)
    for place, column in enumerate(columns):
        table.add_column(column, no_wrap=place in keep, overflow="fold")
    for row in rows:
        table.add_row(*[Text(clean(cell)) for cell in row])
    return table
