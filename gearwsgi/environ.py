"""The keys of a request's environ that are ours."""

JOB_KEY = "gearwsgi.job"
"""The environ key that only a replay has: no client can send it."""

KEYS = ("gearwsgi.gearman", "gearman")
"""Where it is in the environ; only the first is a name that PEP 3333 would have."""
