"""What Django's `environ["gearman"]` has, which stands in the place of the core's."""

from gearwsgi.contrib.django import Gearman
from gearwsgi.submit import tasks


def test_a_django_handler_has_all_that_any_handler_has() -> None:
    inner = {"base", "finish", "is_idle", "queue_request", "traces", "use", "waits"}
    public = {name for name in dir(tasks.Gearman) if not name.startswith("_")} - inner
    assert public <= set(dir(Gearman))
