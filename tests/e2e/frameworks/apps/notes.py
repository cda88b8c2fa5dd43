"""What the frameworks' applications share: what is sent in each way, and the file where jobs write what they got."""

import json
import os

from gearwsgi import Continue

PHOTO = b"\x89PNG\r\n\x1a\n\x00\xff"

SAMPLES = {
    "json": {"data": {"name": "Zoë", "n": [1, 2.5, None, True]}},
    "form": {"form": {"name": "Zoë & Co", "tags": ["a", "b"]}},
    "raw": {"body": b"\x00\xff{raw}\r\n\r\n", "content_type": "application/x-thing"},
    "query": {"params": {"name": "Zoë & Co", "tags": ["a", "b"]}, "method": "GET"},
    "upload": {"form": {"title": "Zoë"}, "files": {"photo": ("été.png", PHOTO, "image/png")}},
}
SETTINGS = {
    "inherit": ["cookie"],
    "tasks": {"testTask": "default.index"},
    "tasks_only": ["/tasks/*"],
    "backoff_min": 0.01,
    "backoff_max": 0.02,
}


def go_on(job):
    """How far long work is, whose first half says to go on later."""
    if job.cursor is None:
        job.progress(1, 2)
        raise Continue(cursor={"half": 2})
    return job.cursor


def record(job, **what):
    what |= {"attempt": job.attempt, "service": job.service}
    fd = os.open(os.environ["RECORD"], os.O_WRONLY | os.O_APPEND)
    os.write(fd, (json.dumps(what) + "\n").encode())
    os.close(fd)
