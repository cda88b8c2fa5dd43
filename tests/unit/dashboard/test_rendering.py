"""What times, spans, numbers and charts look like."""

import pytest

from gearwsgi.dashboard.charts import HEIGHT, draw
from gearwsgi.dashboard.pages.services import quantile
from gearwsgi.dashboard.rendering import show_ago, show_lines, show_span, show_words
from gearwsgi.state.records.queries import Step


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"), (0.0004, "0 ms"), (0.25, "250 ms"), (1.254, "1.25 s"), (42.5, "42.5 s"), (210, "3.50 min"),
        (36000, "10.0 h"), (10 * 86400, "10.0 d"), (200 * 86400, "200 d"),
    ],
)  # fmt: skip
def test_a_span_is_shown_in_one_unit(seconds: float | None, text: str) -> None:
    assert show_span(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "now"), (12.9, "12 s ago"), (-90, "in 1 min"), (7200, "2 h ago"), (90000, "1 d ago")]
)
def test_a_time_is_told_by_how_long_ago_it_was(seconds: float, text: str) -> None:
    assert show_ago(seconds) == text


def test_lines_and_words_are_escaped_and_printable() -> None:
    assert show_lines("a\t<b>\r\n\x1b[31m") == "a\t&lt;b&gt;\n\\x1b[31m"
    assert show_words("do `rm <x>` now & `then") == "do <code>rm &lt;x&gt;</code> now &amp; <code>then</code>"


def test_a_chart_is_as_high_as_its_highest_step_rounded_up() -> None:
    chart = draw([Step(0, 0, 0), Step(3, 1, 7), Step(0, 90, 0)], 60.0, "the last hour")
    assert (chart.top, chart.top_waiting, chart.done, chart.failed) == (100, 10, 3, 91)
    assert [bar.told for bar in chart.bars][1:] == [
        "1 min ago: 3 done, 1 failed, 7 waiting", "just now: 0 done, 90 failed, 0 waiting",
    ]  # fmt: skip
    assert chart.bars[0].done == chart.bars[0].failed == 0.0 and chart.bars[2].failed == 0.9 * HEIGHT
    assert chart.told == "In the last hour, 3 were done and 91 failed; at most 7 waited."


def test_a_quantile_is_one_of_the_values() -> None:
    assert quantile([], 0.5) is None
    assert quantile([1.0], 0.95) == 1.0
    assert quantile([float(number) for number in range(1, 101)], 0.95) == 95.0
