"""`deferred` of Flask and Django: login, CSRF and validation stand in front of the 202, the body runs in the replay."""

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Response, request
from flask_login import LoginManager, UserMixin, login_required
from flask_wtf import CSRFProtect
from webob import Request

from gearwsgi.contrib.flask import Gearman, deferred
from gearwsgi.errors import ConfigError
from gearwsgi.testing import capture
from tests.support import free_port


class OneWay:
    """A body that can be read once, as most servers have it."""

    def __init__(self, body: bytes) -> None:
        self._file = io.BytesIO(body)

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size)

    def readline(self, size: int = -1) -> bytes:
        return self._file.readline(size)


class User(UserMixin):
    id = "ada"


def make_flask(tmp_path: Path) -> tuple[Flask, list[Any]]:
    app = Flask(__name__)
    app.secret_key = "a key of the tests"
    app.config["GEARWSGI"] = {"servers": f"127.0.0.1:{free_port()}", "state_dir": tmp_path, "records": "sqlite"}
    Gearman(app)
    CSRFProtect(app)
    login = LoginManager(app)
    ran: list[Any] = []

    @login.request_loader
    def load(request: Any) -> Any:
        return User() if request.headers.get("Authorization") == "Bearer ada" else None

    @app.get("/token")
    def token() -> str:
        from flask_wtf.csrf import generate_csrf

        return generate_csrf()

    @app.post("/upload")
    @login_required
    @deferred(inherit=["Authorization"], wait=5)
    def upload() -> Any:
        ran.append((request.form["name"], request.files["file"].read()))
        response = Response("did it", status=201)
        response.set_cookie("a", "1")
        response.set_cookie("b", "2")
        return response

    @app.get("/maybe")
    @deferred(prefer=True)
    async def maybe() -> str:
        return "at once"

    return app, ran


BODY = b'--x\r\nContent-Disposition: form-data; name="name"\r\n\r\nAda\r\n--x\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\ncontent\r\n--x--\r\n'  # noqa: E501


def send(app: Any, **headers: str) -> Any:
    asked = Request.blank("/upload", method="POST", headers={"Content-Type": "multipart/form-data; boundary=x"})
    asked.headers.update(headers)
    asked.environ.update({"CONTENT_LENGTH": str(len(BODY)), "wsgi.input": OneWay(BODY)})
    return asked.get_response(app)


def test_in_flask_login_and_csrf_are_in_front_of_the_202_and_the_view_gets_the_same_form(tmp_path: Path) -> None:
    app, ran = make_flask(tmp_path)
    with capture(app) as tasks:
        page = Request.blank("/token").get_response(app)
        known = {"X-CSRFToken": page.text, "Cookie": page.headers["Set-Cookie"].partition(";")[0]}
        assert send(app, Authorization="Bearer ada").status_code == 400  # no token
        assert send(app, **known).status_code == 401  # no login
        assert len(tasks) == 0
        answer = send(app, Authorization="Bearer ada", **known)
        assert (answer.status_code, answer.json["id"]) == (202, tasks[0].id)
        assert ran == []
        assert tasks.run()[0].fate == "done"
        assert ran == [("Ada", b"content")]
        assert Request.blank(answer.location).get_response(app).json["state"] == "done"
    with capture(app, inline=True):
        answer = send(app, Authorization="Bearer ada", **known)
        assert (answer.status_code, answer.text) == (201, "did it")
        assert len([each for each in answer.headers.getall("Set-Cookie") if each[:2] in ("a=", "b=")]) == 2


def test_with_prefer_the_view_itself_answers_whom_did_not_ask(tmp_path: Path) -> None:
    app, _ = make_flask(tmp_path)
    with capture(app):
        assert Request.blank("/maybe").get_response(app).text == "at once"
        assert Request.blank("/maybe", headers={"Prefer": "respond-async"}).get_response(app).status_code == 202


def test_a_wrong_option_is_told_where_the_view_is_made() -> None:
    with pytest.raises(ConfigError, match="did you mean 'queue'"):
        deferred(quue="x")(make_flask)  # type: ignore[call-overload]


DJANGO = """
import io, sys
import django
from django.conf import settings
from django.utils.decorators import method_decorator
from django.views import View

settings.configure(
    ROOT_URLCONF=__name__, SECRET_KEY="x" * 50, ALLOWED_HOSTS=["*"], WSGI_APPLICATION=__name__ + ".application",
    DATA_UPLOAD_MAX_MEMORY_SIZE=100,
    INSTALLED_APPS=["gearwsgi.contrib.django"],
    MIDDLEWARE=["gearwsgi.contrib.django.JobMiddleware", "django.middleware.csrf.CsrfViewMiddleware"],
    GEARWSGI={"servers": "127.0.0.1:1", "state_dir": sys.argv[1], "records": "sqlite", "status_path": "/-/tasks"},
)
django.setup()

from django.http import HttpResponse
from django.test import Client
from django.urls import path
from webob import Request
from gearwsgi.contrib.django import deferred, get_wsgi_application
from gearwsgi.testing import capture
from tests.integration.deferral.test_decorators import BODY, OneWay

ran = []


def only_staff(view):
    def check(request):
        return view(request) if request.headers.get("X-Staff") else HttpResponse("no", status=403)
    check.__dict__.update(view.__dict__)
    return check


@only_staff
@deferred(wait=5)
def upload(request):
    ran.append((request.POST["name"], request.FILES["file"].read(), len(request.headers)))
    response = HttpResponse("did it", status=201)
    response.set_cookie("a", "1")
    response.set_cookie("b", "2")
    return response


@method_decorator(deferred, name="dispatch")
class Thing(View):
    def put(self, request):
        ran.append(request.body)
        return HttpResponse("thing")


@deferred(prefer=True)
async def maybe(request):
    return HttpResponse("at once")


def handler(request):
    if "gearwsgi.job" not in request.environ:
        return request.environ["gearman"].defer(keep_result=5)
    return HttpResponse("handled")


urlpatterns = [path("upload", upload), path("thing", Thing.as_view()), path("handler", handler), path("maybe", maybe)]
application = get_wsgi_application()


def send(**headers):
    asked = Request.blank("/upload", method="POST", headers={"Content-Type": "multipart/form-data; boundary=x"})
    asked.headers.update(headers)
    asked.environ.update({"CONTENT_LENGTH": str(len(BODY)), "wsgi.input": OneWay(BODY)})
    return asked.get_response(application)


secret = "a" * 32
token = {"X-CSRFToken": secret, "Cookie": "csrftoken=" + secret}
with capture(application) as tasks:
    assert send(**{"X-Staff": "1"}).status_code == 403  # no token
    assert send(**token).text == "no"
    assert not tasks
    answer = send(**token, **{"X-Staff": "1"})
    assert answer.status_code == 202, answer.text
    assert not ran
    tasks.run()
    assert [each[:2] for each in ran] == [("Ada", b"content")]
    assert Request.blank(answer.location).get_response(application).json["state"] == "done"
    ran.clear()
    client = Client()
    assert client.put("/thing", b"x" * 90).status_code == 202
    answer = client.get("/handler")
    assert (answer.status_code, answer["Content-Type"]) == (202, "application/json")
    assert [run.status for run in tasks.run()] == ["200 OK", "200 OK"]
    assert ran == [b"x" * 90]
    assert client.get("/maybe").content == b"at once"
    assert client.get("/maybe", headers={"Prefer": "respond-async"}).status_code == 202
with capture(application, inline=True):
    answer = send(**token, **{"X-Staff": "1"})
    assert (answer.status_code, answer.text) == (201, "did it")
    cookies = sorted(each.strip() for each in answer.headers.getall("Set-Cookie"))
    assert cookies == ["a=1; Path=/", "b=2; Path=/"], cookies
print("fine")
"""


def test_in_django_permission_and_csrf_are_in_front_of_the_202_and_the_view_gets_the_same_form(tmp_path: Path) -> None:
    script = tmp_path / "django_site.py"
    script.write_text(DJANGO)
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", "import sys; sys.path[:0] = sys.argv[2:]; import django_site", str(tmp_path),
         str(tmp_path), str(root)], capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.stdout == "fine\n", done.stderr
