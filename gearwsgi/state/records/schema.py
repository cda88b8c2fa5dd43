"""The tables of the records, in SQL that SQLite and PostgreSQL both run, and how a store of an older version gets on.

Times are Unix times in seconds. What a task is called, and why it failed, is text from anywhere: it is only ever given
as a parameter.
"""

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE gearwsgi_task (
            id {key} PRIMARY KEY, service TEXT NOT NULL, method TEXT NOT NULL, path TEXT NOT NULL, queue TEXT NOT NULL,
            priority TEXT NOT NULL, state TEXT NOT NULL, queued {real} NOT NULL, due {real}, started {real},
            ended {real}, attempts BIGINT NOT NULL, max_attempts BIGINT, done BIGINT, total BIGINT, status INTEGER,
            reason TEXT, host TEXT, pid BIGINT, request_id TEXT, traceparent TEXT, owner TEXT, place BIGINT NOT NULL,
            changed {real} NOT NULL, began {real}, history TEXT NOT NULL)""",
        "CREATE INDEX gearwsgi_task_queued ON gearwsgi_task (queued)",
        # A dead letter's whole file. `spool` is the state directory that it lies in, `name` its name there.
        """CREATE TABLE gearwsgi_letter (
            spool TEXT NOT NULL, name TEXT NOT NULL, task {key} NOT NULL, content {blob} NOT NULL,
            PRIMARY KEY (spool, name))""",
        "CREATE INDEX gearwsgi_letter_task ON gearwsgi_letter (task)",
        "CREATE TABLE gearwsgi_result (task {key} PRIMARY KEY, until {real} NOT NULL, content {blob} NOT NULL)",
        "CREATE INDEX gearwsgi_result_until ON gearwsgi_result (until)",
        "CREATE TABLE gearwsgi_supervisor (id TEXT PRIMARY KEY, heard {real} NOT NULL, about TEXT NOT NULL)",
        # What supervisors are asked to do: `kind` is pause (of the queue `name`), cancel (of the task `name`) or
        # forget (of the letter `name` in the state directory `about`).
        """CREATE TABLE gearwsgi_request (
            kind TEXT NOT NULL, name {key} NOT NULL, made {real} NOT NULL, until {real}, about TEXT NOT NULL,
            PRIMARY KEY (kind, name, about))""",
    ),
    (
        # Which webhooks were taken in: `holder` is empty once one is queued, before that it is who is about to.
        "CREATE TABLE gearwsgi_seen (key {key} PRIMARY KEY, until {real} NOT NULL, holder TEXT NOT NULL)",
        "CREATE INDEX gearwsgi_seen_until ON gearwsgi_seen (until)",
    ),
    # The message of a task whose record was written by who queued it.
    ("ALTER TABLE gearwsgi_task ADD COLUMN message {blob}",),
    # What somebody looks for, in a store full of what went well. A task that is done at once is not in it, and so
    # costs its writer nothing.
    ("CREATE INDEX gearwsgi_task_open ON gearwsgi_task (state, queued) WHERE state <> 'done'",),
    # The last tick of each entry of the schedule.
    ("CREATE TABLE gearwsgi_tick (name {key} PRIMARY KEY, at {real} NOT NULL, task {key})",),
    # Which supervisor owns which keys of limits: `share` is a number that a key's name gives. An owner whose time is
    # over owns nothing.
    (
        "CREATE TABLE gearwsgi_lessee (owner {key}, queue {key}, until {real} NOT NULL, PRIMARY KEY (owner, queue))",
        "CREATE TABLE gearwsgi_lease (queue {key}, share INTEGER, owner {key} NOT NULL, PRIMARY KEY (queue, share))",
    ),
    # When tasks of keys that have a rate began, written before they do: see `starts`.
    (
        """CREATE TABLE gearwsgi_start (
            queue {key}, share INTEGER, key {key}, until {real} NOT NULL, starts TEXT NOT NULL,
            PRIMARY KEY (queue, share, key))""",
        "CREATE INDEX gearwsgi_start_until ON gearwsgi_start (until)",
    ),
)
"""What leads from each version to the next. What was released is never changed: append."""

VERSION = len(MIGRATIONS)
META = "CREATE TABLE gearwsgi_meta (name TEXT PRIMARY KEY, value BIGINT NOT NULL)"
