"""How long a key waits for its rate."""

from gearwsgi.message.limits import Limit
from gearwsgi.worker.limits import Key


def test_a_rate_counts_what_began_within_its_window_and_what_is_about_to() -> None:
    key = Key("mail")
    key.use(Limit("mail", rate="2/minute"))
    assert key.wait(1000.0) == 0
    key.starts.extend([1000.0, 1010.0])
    assert key.wait(1015.0) == 45, "until the first is out of the window"
    assert key.wait(1060.0) == 0 and list(key.starts) == [1010.0]
    key.asked = 1
    assert key.wait(1060.0) == 10, "one that was asked for may begin at any time"
    key.asked, key.starts = 2, type(key.starts)()
    assert 0 < key.wait(2000.0) < 1


def test_a_rate_that_is_lowered_waits_until_few_enough_have_begun() -> None:
    key = Key("mail")
    key.use(Limit("mail", rate="4/minute"))
    key.starts.extend([1000.0, 1010.0, 1020.0, 1030.0])
    key.use(Limit("mail", rate="2/minute"))
    assert key.wait(1031.0) == 49, "the third but last"
    key.use(Limit("mail", concurrency=1))
    assert key.wait(1031.0) == 0 and not key.starts
