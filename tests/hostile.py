"""Text that a stranger may have written into any field."""

HOSTILE = [
    r"\[/x]",
    "[/]",
    "[bold red]x[/]",
    "[link=http://x]y[/link] :smile:",
    "\x1b[2J\x1b]0;owned\x07",
    "\x9b2J",
    "two\nlines\r\x0bmore\u2028end",
    "\u202eright to left\u2066",
    "tab\there",
    "\x00nul",
    "%s {0} $(x) `y` ';--",
    "\udcff",
]


def obeys_no_terminal(text: str) -> bool:
    """Whether nothing in it would move a terminal's cursor, or turn its text round."""
    return all(char.isprintable() or char == "\n" for char in text)
