"""Computes charts: where their bars and lines are. A template draws them as SVG. Pure."""

from collections.abc import Sequence
from typing import NamedTuple

from ..state.records.queries import Step

WIDTH, HEIGHT = 720.0, 120.0
_GAP = 0.25
"""The part of a step's width that is left free."""


class Bar(NamedTuple):
    """One step of time. `done` and `failed` are heights, the second one below; `told` is what they mean."""

    x: float
    width: float
    done: float
    failed: float
    told: str


class Chart(NamedTuple):
    """What a template draws, in a box of `WIDTH` by `HEIGHT`.

    Attributes:
        bars: a bar a step.
        line: the points of the line of those that waited, as SVG has them.
        top: what the highest bar stands for.
        top_waiting: what the line's highest point stands for.
        done: how many in all.
        failed: how many in all.
        told: all of it in a sentence.
    """

    bars: list[Bar]
    line: str
    top: int
    top_waiting: int
    done: int
    failed: int
    told: str


def draw(steps: Sequence[Step], seconds: float, span: str) -> Chart:
    """The chart of these steps.

    Args:
        steps: the oldest first.
        seconds: that each takes.
        span: what they are together, such as `the last hour`.
    """
    top = _round(max((step.done + step.failed for step in steps), default=0))
    top_waiting = _round(max((step.waiting for step in steps), default=0))
    width = WIDTH / max(1, len(steps))
    bars, points = [], []
    for place, step in enumerate(steps):
        age = (len(steps) - 1 - place) * seconds
        bars.append(
            Bar(
                round(place * width + width * _GAP / 2, 2), round(width * (1 - _GAP), 2),
                _height(step.done, top), _height(step.failed, top), _told(step, age, seconds),
            )
        )  # fmt: skip
        points.append(f"{(place + 0.5) * width:.1f},{HEIGHT - _height(step.waiting, top_waiting):.1f}")
    done, failed = sum(step.done for step in steps), sum(step.failed for step in steps)
    most = max((step.waiting for step in steps), default=0)
    told = f"In {span}, {done:,} were done and {failed:,} failed; at most {most:,} waited."
    return Chart(bars, " ".join(points), top, top_waiting, done, failed, told)


def _height(number: int, top: int) -> float:
    if not number:
        return 0.0
    return round(max(1.0, number / top * HEIGHT), 2)  # high enough to be seen


def _round(number: int) -> int:
    """The next number that is easy to read: 1, 2, 5, 10, 20 …"""
    size = 1
    while True:
        for step in (1, 2, 5):
            if number <= step * size:
                return step * size
        size *= 10


def _told(step: Step, age: float, seconds: float) -> str:
    when = "just now" if age < seconds else f"{age / 60:.0f} min ago" if age < 7200 else f"{age / 3600:.1f} h ago"
    return f"{when}: {step.done:,} done, {step.failed:,} failed, {step.waiting:,} waiting"
