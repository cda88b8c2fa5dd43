"""Which job of a tick of the schedule has it, in both databases."""

import threading

from gearwsgi.settings import Settings
from gearwsgi.state.records import ticks
from gearwsgi.state.records.opening import open_database
from gearwsgi.state.records.store import Store

TICK = 1_800_000_000.0


def test_one_job_of_a_tick_has_it_however_many_come_at_once(settings: Settings, store: Store) -> None:
    ticks.last_ticks(store.database)  # the tables are there
    start, won = threading.Barrier(8), dict[int, list[str]]()

    def supervisor(number: int) -> None:
        own = open_database(settings)
        assert own is not None
        start.wait()
        won[number] = [
            ticks.begin(own, "nightly", "job", TICK + tick, f"task {tick}", f"job {tick} of {number}")
            for tick in range(10)
        ]
        own.close()

    threads = [threading.Thread(target=supervisor, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 8 and len(set(map(tuple, won.values()))) == 1, "all were told the same"
    assert ticks.last_ticks(store.database)["nightly"] == ticks.LastTick(TICK + 9, "task 9")


def test_a_job_that_is_handed_out_again_has_its_tick_still_and_an_older_tick_is_not_the_last(
    store: Store,
) -> None:
    for _ in range(2):
        assert ticks.begin(store.database, "nightly", "job", TICK, "task", "first") == "first"
    assert ticks.begin(store.database, "nightly", "job", TICK, "task", "second") == "first"
    assert ticks.begin(store.database, "nightly", "other", TICK, "task", "second") == "second", "another queue's entry"
    assert ticks.begin(store.database, "nightly", "job", TICK - 60, "older", "third") == "third"
    assert ticks.last_ticks(store.database)["nightly"] == ticks.LastTick(TICK, "task")
