"""How many jobs are held ahead."""

import pytest

from gearwsgi.worker.pace import MAX_AHEAD, SHORT, Pace


@pytest.mark.parametrize(
    ("seconds", "hold"),
    [
        ([1 / 8192] * 16, 21),
        ([0.000001] * 16, 1 + MAX_AHEAD),
        ([0.0] * 16, 1 + MAX_AHEAD),
        ([0.001] * 16, 3),
        ([0.010] * 16, 2),
        ([SHORT * 1.1] * 16, 1),
        ([1 / 8192] * 15, 1),
        ([1 / 8192] * 15 + [1.0], 1),
        ([1 / 8192] * 15 + [float("inf")], 1),
        ([float("inf")] + [1 / 8192] * 16, 21),
    ],
)
def test_so_many_are_held_as_are_done_in_a_moment(seconds: list[float], hold: int) -> None:
    pace = Pace()
    for each in seconds:
        if each == float("inf"):
            pace.hold_back()
        else:
            pace.count(each)
    for _ in range(10):
        pace.advance()
    assert pace.hold == hold


def test_what_is_held_grows_from_few_and_falls_when_the_queue_is_empty() -> None:
    pace = Pace()
    for _ in range(16):
        pace.count(1 / 8192)
    seen = []
    for _ in range(7):
        pace.advance()
        seen.append(pace.hold)
    assert seen == [2, 3, 5, 9, 17, 21, 21]
    pace.queue_was_empty()
    assert pace.hold == 2
    pace.advance()
    assert pace.hold == 2
