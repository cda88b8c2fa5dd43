"""Services: how many of each, how many failed, how long they take and wait."""

import math
from collections.abc import Sequence

from webob import Response

from ...state.records.queries import SAMPLE, Queries
from ..view import Page, View


def show(view: View) -> Response:
    """The page."""
    rows: list[dict[str, object]] = []
    since = None
    with view.records() as store:
        if store is not None:
            services, since = Queries(store.database).services()
            for each in services:
                rows.append(
                    {
                        "service": each,
                        "seconds": [quantile(each.seconds, part) for part in (0.5, 0.95)],
                        "waited": [quantile(each.waited, part) for part in (0.5, 0.95)],
                    }
                )
    return view.render("services.html", rows=rows, since=since, sample=SAMPLE)


def quantile(ordered: Sequence[float], part: float) -> float | None:
    """The smallest value that this part of them does not exceed; None where there are none."""
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)] if ordered else None


PAGES = (Page("services", show, "Services"),)
