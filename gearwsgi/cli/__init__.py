"""The command line: `gearwsgi worker`, `server`, `send`, `status`, `tasks`, `task`, `result`, `outbox`, `dead` …

A command is imported only when it is asked for: the supervisor, which lives as long as the site, need not carry others.
"""

import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from .._version import __version__
from ..errors import EXIT_APP, EXIT_ERROR, EXIT_PROBLEM, AppLoadError, GearwsgiError, RecordsError, UnknownEntry
from ..log import clean
from .lazy import LazyGroup

_COMMANDS = {
    "worker": ("gearwsgi.cli.worker", "worker"),
    "server": ("gearwsgi.server.__main__", "command"),
    "send": ("gearwsgi.cli.send", "send"),
    "status": ("gearwsgi.cli.status", "show_status"),
    "tasks": ("gearwsgi.cli.tasks", "tasks"),
    "task": ("gearwsgi.cli.tasks", "show_task"),
    "result": ("gearwsgi.cli.tasks", "show_result"),
    "cancel": ("gearwsgi.cli.steer", "cancel"),
    "pause": ("gearwsgi.cli.steer", "pause"),
    "resume": ("gearwsgi.cli.steer", "resume"),
    "limit": ("gearwsgi.cli.limit", "limit"),
    "schedule": ("gearwsgi.cli.schedule", "schedule"),
    "outbox": ("gearwsgi.cli.outbox", "outbox"),
    "dead": ("gearwsgi.cli.dead", "dead"),
    "dashboard": ("gearwsgi.cli.dashboard", "dashboard"),
    "dev": ("gearwsgi.cli.dev", "dev"),
    "check": ("gearwsgi.cli.check", "check"),
}


class _Commands(LazyGroup):
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name == "worker":
            # HUP asks for new code, and must not end this process: it waits until the supervisor listens.
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
        return super().get_command(ctx, cmd_name)


@click.command(cls=_Commands, homes=_COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="gearwsgi")
def cli() -> None:
    """Background work for any WSGI application: requests queued on Gearman, replayed through the same app."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with its code; `arguments` are the process's where they are not given."""
    try:
        code = cli.main(None if arguments is None else list(arguments), prog_name="gearwsgi", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(130)
    except AppLoadError as error:
        _fail(error, EXIT_APP)
    except (RecordsError, UnknownEntry) as error:
        _fail(error, EXIT_PROBLEM)
    except GearwsgiError as error:
        _fail(error, EXIT_ERROR)
    except BrokenPipeError:
        sys.exit(0)  # as `gearwsgi dead list | head` does
    sys.exit(code if isinstance(code, int) else 0)


def _fail(error: GearwsgiError, code: int) -> NoReturn:
    # The text may be a stranger's.
    click.echo("\n".join(map(clean, f"gearwsgi: {error}".split("\n"))), err=True)
    sys.exit(code)
