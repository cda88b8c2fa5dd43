"""The options of `gearwsgi worker`: the command has those that are declared, and they travel as JSON."""

from dataclasses import fields

import click
import pytest

from gearwsgi.cli import worker as command
from gearwsgi.worker.options import Options


def given_by(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Options:
    """What the command makes of these arguments."""
    seen: list[Options] = []

    class Started(Exception):
        pass

    def start(options: Options) -> None:
        seen.append(options)
        raise Started

    monkeypatch.setattr(command, "ForkServerProcess", start)
    with pytest.raises(Started):
        command.worker.main(list(arguments), standalone_mode=False)
    return seen[0]


def test_the_command_has_each_option_that_is_declared_and_no_other() -> None:
    assert {each.name for each in command.worker.params} == {each.name for each in fields(Options)}
    assert all(each.help for each in command.worker.params if isinstance(each, click.Option))


def test_what_is_not_given_has_the_declared_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert given_by(monkeypatch, "a:b") == Options("a:b")


def test_what_is_given_arrives_also_behind_json(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["a:b", "-w", "3", "--queues", "mail:2,job", "-t", "7", "--graceful-timeout", "9", "--max-jobs", "5"]
    arguments += ["--max-rss", "90", "--no-preload", "--no-lookahead", "--reload", "--burst", "--log-level", "warning"]
    options = given_by(monkeypatch, *arguments)
    queues = (("mail", 2), ("job", 0))
    assert options == Options("a:b", 3, queues, 7.0, 9.0, 5, 90.0, False, False, True, True, "warning")
    assert Options.from_json(options.to_json()) == options
