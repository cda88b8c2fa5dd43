"""Groups whose commands are imported when they are asked for."""

import importlib
from collections.abc import Mapping
from typing import Any

import click


class LazyGroup(click.Group):
    """A group that has commands in other modules, beside its own.

    Args:
        arguments: as `click.Group` has them.
        homes: names of commands to the module and the name in it, in the order in which help shows them.
        more: as `click.Group` has them.
    """

    def __init__(self, *arguments: Any, homes: Mapping[str, tuple[str, str]], **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._homes = homes

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*super().list_commands(ctx), *self._homes]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._homes:
            return super().get_command(ctx, cmd_name)
        module, name = self._homes[cmd_name]
        command: click.Command = getattr(importlib.import_module(module), name)
        return command
