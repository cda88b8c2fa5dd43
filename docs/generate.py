"""Make the pages that repeat what the code says: settings.md and commands.md.

python docs/generate.py            writes them
python docs/generate.py --check    fails where they differ from what it would write
"""

import inspect
import sys
from pathlib import Path
from typing import Any

import click

from gearwsgi.cli import cli
from gearwsgi.settings import SETTINGS, Setting

HERE = Path(__file__).parent
FIRST = "<!-- Made from the code by docs/generate.py. -->\n\n"


def settings_page() -> str:
    """Every setting in one table: name, default, environment, meaning."""
    rows = [
        f"| `{name}` | {show(setting.default)} | {variable(setting)} | {cell(setting.help)} |"
        for name, setting in SETTINGS.items()
    ]
    return (
        FIRST
        + """# Settings

`GearmanMiddleware(app, servers=…, tasks=…, …)` takes them all; everything after `tasks` by its name only. A
setting that is not given is taken from the environment, where it has a variable there, and else is its default.
They hold for the web application and for the workers, which read them from the same code; an option of the
command line overrides one only when it is given. An unknown name is an error that says which one is nearest.

| setting | default | environment | meaning |
|---|---|---|---|
"""
        + "\n".join(rows)
        + """

`GearmanMiddleware.from_config(app, config)` takes them as a dict, and `task` in place of `tasks`, as
PhalApi-Gearman's configuration has it.

A `servers` entry is `host:port`, `[ipv6]:port` or `tls://host:port?ca=FILE&cert=FILE&key=FILE`; several go with
commas or in a list. `embedded` is a job server that the worker's supervisor starts on 127.0.0.1:4730,
`embedded://127.0.0.1:4731` one on another port.
"""
    )


def variable(setting: Setting) -> str:
    """A setting's environment variable."""
    return f"`{setting.variable}`" if setting.variable else ""


def show(value: Any) -> str:
    """A default, for a reader."""
    if value in (None, "", (), {}):
        return "none"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, bool | int):
        return str(value)
    if isinstance(value, tuple):
        return ", ".join(map(show, value))
    return f"`{value}`"


def cell(text: str) -> str:
    """Text that can stand in a table."""
    return text.replace("|", "\\|")


def commands_page() -> str:
    """Every command with its options, as `--help` says them."""
    parts = [
        FIRST
        + """# Commands

An application is named as `module:name`, such as `app:app` or `mysite.wsgi:application`; the current folder is
importable. `gearwsgi send`, `status`, `tasks`, `task`, `result`, `outbox` and `dead` go by the environment
(`GEARMAN_SERVERS`, `GEARWSGI_STATE_DIR`, `GEARWSGI_RECORDS` …), or by an application's settings with `--app`.

Exit codes: 0, and 1 where `check` or `status` found a problem, a replay failed, or `tasks`, `task` or `result` can't
give what was asked for (the reason is on standard error); 2 for a wrong command line;
3 for what can't work (a port that is taken, a state directory that can't be used, no job server); 4 for an
application that can't be loaded; 5 where a worker was stopped by force and jobs were cut off (they are in the
queue again); 128 and the signal's number where QUIT, USR1, USR2 or ALRM ended a worker, which ask for nothing.
"""
    ]
    for name in cli.list_commands(click.Context(cli)):
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        parts += show_command(f"gearwsgi {name}", command)
    return "\n".join(parts)


def show_command(name: str, command: click.Command) -> list[str]:
    """A command's section; of a group, each of its commands'."""
    context = click.Context(command, info_name=name)
    if isinstance(command, click.Group):
        parts: list[str] = []
        for sub in command.list_commands(context):
            found = command.get_command(context, sub)
            assert found is not None
            parts += show_command(f"{name} {sub}", found)
        return parts
    usage = " ".join(command.collect_usage_pieces(context))
    text = [f"## {name}\n\n`{name} {usage}`\n", inspect.cleandoc(command.help or "") + "\n"]
    rows = []
    for parameter in command.params:
        record = parameter.get_help_record(context)
        if record is not None:
            rows.append(f"| `{cell(record[0])}` | {cell(record[1])} |")
    if rows:
        text.append("| option | |\n|---|---|\n" + "\n".join(rows) + "\n")
    return text


PAGES = {"settings.md": settings_page, "commands.md": commands_page}


def main() -> int:
    code = 0
    for name, make in PAGES.items():
        path, text = HERE / name, make()
        if "--check" not in sys.argv:
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            print(f"docs/{name} is not what the code says; run: python docs/generate.py")
            code = 1
    return code


if __name__ == "__main__":
    sys.exit(main())
