"""All pages. A new one is a module beside this one, a template, and its name here."""

from ..view import Page
from . import dead, letter, limits, outbox, overview, queues, schedules, services, task, tasks

PAGES: tuple[Page, ...] = (
    *overview.PAGES,
    *tasks.PAGES,
    *task.PAGES,
    *dead.PAGES,
    *letter.PAGES,
    *services.PAGES,
    *queues.PAGES,
    *limits.PAGES,
    *schedules.PAGES,
    *outbox.PAGES,
)
"""In the order of the navigation."""
