"""The tables of the records, in SQL that SQLite and PostgreSQL both run, and the way from older versions to this one.

Times are Unix times in seconds. A task's name, or why it failed, is text from anywhere: it is only ever passed as a
parameter.
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
        # What supervisors are asked to do, by kind: pause (the queue `name`), cancel (the task `name`) or forget (the
        # letter `name` in the state directory `about`).
        """CREATE TABLE gearwsgi_request (
            kind TEXT NOT NULL, name {key} NOT NULL, made {real} NOT NULL, until {real}, about TEXT NOT NULL,
            PRIMARY KEY (kind, name, about))""",
    ),
    (
        # The webhooks that were taken in. `holder` is who is about to queue one; empty once that is done.
        "CREATE TABLE gearwsgi_seen (key {key} PRIMARY KEY, until {real} NOT NULL, holder TEXT NOT NULL)",
        "CREATE INDEX gearwsgi_seen_until ON gearwsgi_seen (until)",
    ),
    # The message of a task, where the process that queued it has written its record.
    ("ALTER TABLE gearwsgi_task ADD COLUMN message {blob}",),
    # An index for what somebody looks for in a store full of successful tasks. A task that is done at once is not in
    # it, so it costs the writer nothing.
    ("CREATE INDEX gearwsgi_task_open ON gearwsgi_task (state, queued) WHERE state <> 'done'",),
    # The last tick of each entry of the schedule.
    ("CREATE TABLE gearwsgi_tick (name {key} PRIMARY KEY, at {real} NOT NULL, task {key})",),
    # Which supervisor owns which keys of limits. `share` is a number that follows from a key's name. An owner whose
    # time is over owns nothing any more.
    (
        "CREATE TABLE gearwsgi_lessee (owner {key}, queue {key}, until {real} NOT NULL, PRIMARY KEY (owner, queue))",
        "CREATE TABLE gearwsgi_lease (queue {key}, share INTEGER, owner {key} NOT NULL, PRIMARY KEY (queue, share))",
    ),
    # The starts of tasks of keys with a rate, written before the tasks start: see `starts`.
    (
        """CREATE TABLE gearwsgi_start (
            queue {key}, share INTEGER, key {key}, until {real} NOT NULL, starts TEXT NOT NULL,
            PRIMARY KEY (queue, share, key))""",
        "CREATE INDEX gearwsgi_start_until ON gearwsgi_start (until)",
    ),
)
"""The statements that lead from each version to the next. Never change what was released: append."""

VERSION = len(MIGRATIONS)
META = "CREATE TABLE gearwsgi_meta (name TEXT PRIMARY KEY, value BIGINT NOT NULL)"
