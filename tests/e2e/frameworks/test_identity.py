"""Django's users: as whom a task runs, which a script tells that has a project, a database and a queue in memory."""

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import sys
import django
from django.conf import settings

settings.configure(
    SECRET_KEY="a secret of the tests", ALLOWED_HOSTS=["testserver"], ROOT_URLCONF="__main__",
    DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    INSTALLED_APPS=[
        "django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions", "gearwsgi.contrib.django",
    ],
    MIDDLEWARE=[
        "gearwsgi.contrib.django.JobMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ],
    AUTHENTICATION_BACKENDS=["django.contrib.auth.backends." + sys.argv[1]],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": sys.argv[2]}},
    GEARWSGI={
        "secret_keys": ["k" * 32],
        "defer": [{"route": "POST /members", "identity": "user"}],
        "authorize": lambda environ, job: job.service != "/secret" or user_of(job).is_superuser,
    },
)
django.setup()

from django.contrib.auth import get_user_model
from django.contrib.auth.decorators import login_required
from django.core.management import call_command
from django.http import HttpResponse
from django.test import Client
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from gearwsgi.contrib.django import get_wsgi_application
from gearwsgi.testing import capture

call_command("migrate", verbosity=0)
User = get_user_model()
ada = User.objects.create_user("ada", password="x")
root = User.objects.create_superuser("root", password="x")
seen = []

def user_of(job):
    return User.objects.get(pk=job.identity)

def order(request, service):
    return HttpResponse(str(request.environ["gearman"].task("/" + service, {}, identity="user").id))

@csrf_exempt
@login_required
def work(request):
    seen.append(request.user.username)
    return HttpResponse("done")

urlpatterns = [path("order/<service>", order), path("work", work), path("secret", work), path("members", work)]
application = get_wsgi_application()

with capture(application) as tasks:
    def client(user=None):
        made = Client()
        tasks.attach(made)
        if user is not None:
            made.force_login(user, backend=settings.AUTHENTICATION_BACKENDS[0])
        return made

    assert client(ada).get("/order/work").status_code == 200
    assert [task.identity for task in tasks] == [str(ada.pk)], tasks
    assert b"Cookie" not in tasks[0].payload
    tasks.run()
    assert seen == ["ada"], seen

    # authorize: asked with the user, before every attempt
    client(ada).get("/order/secret")
    client(root).get("/order/secret")
    fates = [(run.fate, run.reason) for run in tasks.run(raises=False)]
    assert fates == [("dead", "no longer allowed"), ("done", "")], fates
    assert seen == ["ada", "root"], seen

    # nobody is logged in: the login page says so, and nothing is queued by the rule
    before = len(tasks)
    assert client().post("/members").status_code == 302
    assert len(tasks) == before
    assert client(ada).post("/members").status_code == 202
    tasks.run()
    assert seen[2:] == ["ada"], seen

    # not active any more, not there any more
    client(ada).get("/order/work")
    client(ada).get("/order/work")
    User.objects.filter(pk=ada.pk).update(is_active=False)
    tasks.run(1, raises=False)
    pk = ada.pk
    ada.delete()
    tasks.run(1, raises=False)
    reasons = [run.reason for run in tasks.dead][1:]
    assert reasons == [f"user {pk} is not active any more", f"user {pk} is not there any more"], reasons
    assert len(seen) == 3
print("all well")
"""


def run(folder: Path, backend: str) -> None:
    script = folder / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), backend, str(folder / "db.sqlite3")]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.stdout == "all well\n", done.stderr


def test_a_task_runs_as_djangos_user_who_asked_and_as_nobody_who_may_not_any_more(tmp_path: Path) -> None:
    run(tmp_path, "ModelBackend")


def test_a_backend_that_lets_everybody_in_lets_nobody_in_who_is_not_active(tmp_path: Path) -> None:
    run(tmp_path, "AllowAllUsersModelBackend")
