"""Schedules: what runs by the clock, when next, and what came of it last; run one now, pause and resume one."""

from webob import Response

from ...submit.agenda import Agenda
from ..view import OFF, Page, View


def show(view: View) -> Response:
    """The page."""
    can_pause = bool(view.settings.records)
    return view.render("schedules.html", items=_agenda(view).items(), can_pause=can_pause, off=OFF)


def run(view: View) -> Response:
    """Queue an entry now."""
    name = view.fields.needed("name")
    task_id, _ = _agenda(view).run(name)
    view.log(f"ran the schedule's {name}, id {task_id}")
    return view.go("task", id=task_id)


def pause(view: View) -> Response:
    """Have an entry's ticks not run."""
    name = view.fields.needed("name")
    _agenda(view).pause(name)
    view.log(f"paused the schedule's {name}")
    return view.go("schedules")


def resume(view: View) -> Response:
    """Have them run again."""
    name = view.fields.needed("name")
    if _agenda(view).resume(name).did:
        view.log(f"resumed the schedule's {name}")
    return view.go("schedules")


def _agenda(view: View) -> Agenda:
    return Agenda(view.client, view.who)


PAGES = (
    Page("schedules", show, "Schedules"),
    Page("schedules/run", run, under="schedules", is_action=True),
    Page("schedules/pause", pause, under="schedules", is_action=True),
    Page("schedules/resume", resume, under="schedules", is_action=True),
)
