"""The metrics of a web process, in the default registry of Prometheus's library, which can join those of many."""

from prometheus_client import Counter, Histogram

SUBMIT_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper ends of the buckets, in seconds."""

# Made once in each process, however many middlewares there are: a registry takes each name once.
QUEUED = Counter(
    "gearwsgi_tasks_queued_total",
    "Tasks that a job server or the outbox has taken from this process.",
    ["queue", "service"],
)
SUBMIT = Histogram(
    "gearwsgi_submit_seconds",
    "How long it took until the job server, or the outbox, had what was sent in one write.",
    buckets=SUBMIT_BUCKETS,
)
