"""Long work in Django under ATOMIC_REQUESTS: no piece is told as done whose transaction was rolled back."""

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import sys
import django
from django.conf import settings

database = {"ENGINE": "django.db.backends.sqlite3", "NAME": sys.argv[1], "ATOMIC_REQUESTS": True}
settings.configure(
    SECRET_KEY="a secret of the tests", ALLOWED_HOSTS=["localhost"], ROOT_URLCONF="__main__",
    MIDDLEWARE=["gearwsgi.contrib.django.JobMiddleware"], DATABASES={"default": database},
)
django.setup()

from django.db import connection, transaction
from django.http import HttpResponse
from django.urls import path

from gearwsgi import Continue
from gearwsgi.contrib.django import get_wsgi_application
from gearwsgi.testing import capture

with connection.cursor() as cursor:
    cursor.execute("CREATE TABLE step (number INTEGER)")

def steps():
    with connection.cursor() as cursor:
        cursor.execute("SELECT number FROM step")
        return [number for number, in cursor.fetchall()]

def work(request):
    step = request.environ["gearwsgi.job"].cursor or 0
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO step VALUES (%s)", [step])
    if step < 2:
        raise Continue(cursor=step + 1)
    return HttpResponse("done")

@transaction.non_atomic_requests
def free(request):
    return work(request)

urlpatterns = [path("atomic", work), path("free", free)]
with capture(get_wsgi_application()) as tasks:
    tasks.middleware.gearman.task("/atomic")
    (run,) = tasks.run(raises=False)
    assert run.fate == "retry" and "@transaction.non_atomic_requests" in run.reason, run
    assert steps() == [], steps()
    tasks.clear()
    tasks.middleware.gearman.task("/free")
    assert [run.fate for run in tasks.run()] == ["continue", "continue", "done"]
    assert steps() == [0, 1, 2], steps()
print("all well")
"""


def test_a_piece_that_was_rolled_back_is_a_failed_attempt_that_says_what_to_do(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(tmp_path / "db.sqlite3")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.stdout == "all well\n", done.stderr
