"""The recorder that counts: it hides nothing from the one behind it."""

from gearwsgi.worker.counting import Counting
from gearwsgi.worker.recorder import Recorder
from gearwsgi.worker.recording import Recording


def test_all_that_a_recorder_is_told_is_told_on() -> None:
    told = {name for name in vars(Recorder) if not name.startswith("_")}
    assert told <= vars(Counting).keys()
    assert told - {"counts", "exited", "succeeded"} <= vars(Recording).keys()
