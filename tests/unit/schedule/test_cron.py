"""Expressions, zones and entries: what is read, what is refused and how, and when ticks are."""

import inspect
import itertools
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim

from gearwsgi import Gearman, GearmanMiddleware
from gearwsgi.errors import ConfigError
from gearwsgi.schedule.cron import NAMED, Cron
from gearwsgi.schedule.entries import OPTIONS, read_schedule

BERLIN = ZoneInfo("Europe/Berlin")


def ticks(expression: str, start: datetime, count: int, zone: str = "Europe/Berlin") -> list[str]:
    found = itertools.islice(Cron(expression, zone).ticks(start.timestamp()), count)
    return [f"{tick:%d %H:%M%z}" for tick in found]


def test_in_spring_what_falls_into_the_missing_hour_comes_right_after_it() -> None:
    before = datetime(2026, 3, 28, 12, tzinfo=BERLIN)
    assert ticks("30 2 * * *", before, 2) == ["29 03:00+0200", "30 02:30+0200"]
    assert ticks("*/30 1-3 * * *", before, 4) == ["29 01:00+0100", "29 01:30+0100", "29 03:00+0200", "29 03:30+0200"]


def test_in_autumn_a_fixed_time_comes_once_and_every_half_hour_goes_on() -> None:
    before = datetime(2026, 10, 24, 12, tzinfo=BERLIN)
    assert ticks("30 2 * * *", before, 2) == ["25 02:30+0200", "26 02:30+0100"]
    start = datetime(2026, 10, 25, 1, 45, tzinfo=BERLIN)
    expected = ["25 02:00+0200", "25 02:30+0200", "25 02:00+0100", "25 02:30+0100", "25 03:00+0100"]
    assert ticks("*/30 * * * *", start, 5) == expected
    # Asked in the second one of that hour, cronsim alone would answer with a time that is past.
    again = datetime(2026, 10, 25, 2, 10, fold=1, tzinfo=BERLIN)
    assert ticks("30 2 * * *", again, 1) == ["26 02:30+0100"]


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata"])
@pytest.mark.hypothesis
def test_a_year_of_ticks_is_cronsims_wherever_one_begins_to_ask(zone: str) -> None:
    place = UTC if zone == "UTC" else ZoneInfo(zone)
    start, end = datetime(2026, 1, 1, tzinfo=place), datetime(2027, 1, 1, tzinfo=place)
    for expression in ("17 * * * *", "30 2 * * *", "0,20,40 1-3 * * *", "0 */2 * * *", "5 4 * * MON", "0 0 L * *"):
        walk = CronSim(expression, start)
        year = list(itertools.takewhile(lambda tick: tick.timestamp() <= end.timestamp(), walk))
        cron = Cron(expression, zone)
        assert list(cron.between(start.timestamp(), end.timestamp())) == year
        for tick, later in list(itertools.pairwise(year))[:: max(1, len(year) // 60)]:
            assert cron.after(tick.timestamp()) == later
            assert cron.after(later.timestamp() - 1) == later
            assert cron.last(start.timestamp(), later.timestamp() - 1) == tick
            assert cron.last(tick.timestamp(), later.timestamp() - 1) is None


def test_names_of_expressions_are_those_of_cron() -> None:
    start = datetime(2026, 1, 1, 0, 30, tzinfo=UTC)
    assert [ticks(name, start, 1, "UTC")[0] for name in ("@hourly", "@Daily", "@weekly", "@monthly", "@yearly")] == [
        "01 01:00+0000", "02 00:00+0000", "04 00:00+0000", "01 00:00+0000", "01 00:00+0000",
    ]  # fmt: skip
    assert set(NAMED) == {"@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually"}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("0 0 30 2 *", "never comes: no month of these has that day"),
        ("0 0 31 4,6 *", "never comes"),
        ("0 0 32 * *", "can't be read: bad day-of-month"),
        ("61 * * * *", "can't be read: bad minute"),
        ("* * * * * *", "seconds are not offered"),
        ("* * * *", "has 4 fields: give five"),
        ("", "has 0 fields"),
        ("@hourli", "did you mean '@hourly'?"),
        ("@reboot", "is no name of one; known are @hourly"),
        (5, "give a cron expression such as '0 6 \\* \\* \\*'"),
        ({}, "or a dict with a 'cron'"),
        ({"cron": None}, "give an expression such as"),
        ({"cron": "@daily", "timezone": "Europe/Berln"}, "no time zone has this name, did you mean 'Europe/Berlin'?"),
        ({"cron": "@daily", "timezone": "../../etc/passwd"}, "no time zone has this name"),
        ({"cron": "@daily", "timezone": 1}, "give a zone's name"),
        ({"cron": "@daily", "prioritty": "low"}, "unknown key 'prioritty', did you mean 'priority'?"),
        ({"cron": "@daily", "missed": "twice"}, "give 'skip' or 'once'"),
        ({"cron": "@daily", "overlap": 0}, "give True or False"),
        ({"cron": "@daily", "service": "nothing"}, "unknown service 'nothing'"),
        ({"cron": "@daily", "service": "/x", "priority": "urgent"}, "priority 'urgent' is none of"),
        ({"cron": "@daily", "service": "/x", "data": {1, 2}}, "can't be written as JSON"),
        ({"cron": "@daily", "service": "/x", "missed": "once"}, "needs records"),
        ({"cron": "@daily", "service": "/x", "then": {"srvice": "/y"}}, "then"),
    ],
)
def test_what_can_not_be_an_entry_is_an_error_at_the_start_that_helps(given: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="entry") as caught:
        GearmanMiddleware(lambda environ, start: [], schedule={"entry": given}, state_dir=tmp_path, records="")
    assert said.replace("\\", "") in str(caught.value)


def test_an_entry_without_a_service_calls_what_it_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="calls what it is named"):
        GearmanMiddleware(lambda environ, start: [], schedule={"sweep": "@daily"}, state_dir=tmp_path)
    with pytest.raises(ConfigError, match="a name is up to 100 bytes"):
        read_schedule("schedule", {"a\nb": "@daily"})
    with pytest.raises(ConfigError, match="give a dict of names"):
        read_schedule("schedule", ["@daily"])
    assert read_schedule("schedule", {"report.daily": "@daily"})["report.daily"].service == "report.daily"


def test_an_entry_takes_all_that_task_takes_but_what_makes_no_sense_for_a_tick() -> None:
    taken = set(inspect.signature(Gearman.task).parameters) - {"self", "service"}
    about_requests = {"after", "after_response", "identity"}
    assert taken - set(OPTIONS) == {"unique", "delay", "at", "files", "target", "recorded", *about_requests}
    assert set(OPTIONS) <= taken


def test_utc_needs_no_time_zones_and_others_say_where_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    import zoneinfo

    def none(name: str) -> None:
        raise zoneinfo.ZoneInfoNotFoundError(name)

    monkeypatch.setattr(zoneinfo, "ZoneInfo", none)
    monkeypatch.setattr(zoneinfo, "available_timezones", set)
    assert Cron("@daily").after(0.0) == datetime(1970, 1, 2, tzinfo=UTC)
    with pytest.raises(ValueError, match="pip install"):
        Cron("@daily", "Europe/Berlin")


def test_the_last_tick_is_found_without_a_walk_through_all() -> None:
    now = datetime(2026, 6, 1, 12, 0, 30, tzinfo=UTC)
    years_ago = (now - timedelta(days=4000)).timestamp()
    assert Cron("* * * * *").last(years_ago, now.timestamp()) == now.replace(second=0)
    assert Cron("0 0 29 2 *").last(years_ago, now.timestamp()) == datetime(2024, 2, 29, tzinfo=UTC)
