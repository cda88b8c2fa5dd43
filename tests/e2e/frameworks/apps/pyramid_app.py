"""Pyramid, with routes and view functions."""

from notes import SAMPLES, SETTINGS, go_on, record
from pyramid.config import Configurator
from pyramid.response import Response
from pyramid.session import SignedCookieSessionFactory

from gearwsgi import GearmanMiddleware


def note(request, kind, got):
    record(
        request.environ["gearwsgi.job"],
        kind=kind,
        got=got,
        url=request.route_url("hello", name="x"),
        client=request.client_addr,
        language=str(request.accept_language),
        user=request.session.get("user"),
    )
    return Response("noted")


def hello(request):
    return Response("Hello " + request.matchdict["name"])


def login(request):
    request.session["user"] = "alice"
    return Response("welcome")


def queue(request):
    kind = request.matchdict["kind"]
    gearman = request.environ["gearman"]
    return Response(str(gearman.task("testTask" if kind == "json" else f"/receive/{kind}", **SAMPLES[kind])))


def index(request):
    return note(request, "json", request.json_body)


def receive_form(request):
    return note(request, "form", {"name": request.POST["name"], "tags": request.POST.getall("tags")})


def receive_raw(request):
    return note(request, "raw", [request.body.hex(), request.content_type])


def receive_query(request):
    return note(request, "query", {"name": request.GET["name"], "tags": request.GET.getall("tags")})


def receive_upload(request):
    photo = request.POST["photo"]
    return note(request, "upload", [request.POST["title"], photo.filename, photo.type, photo.file.read().hex()])


def defer(request):
    if "gearwsgi.job" not in request.environ:
        request.environ["gearman"].replay()
        return Response("later", status=202)
    return note(request, "defer", [request.POST["name"], request.GET["page"]])


def later(request):
    request.environ["gearman"].task("/tasks/clean", {"n": 1}, after_response=True)
    return Response("later")


def clean(request):
    return note(request, "clean", request.json_body)


def call(request):
    return request.environ["gearman"].call("GET /hello/Zo%C3%AB")


def flaky(request):
    if request.environ["gearwsgi.job"].attempt == 1:
        raise RuntimeError("the first attempt fails")
    return note(request, "flaky", None)


def long(request):
    return note(request, "long", go_on(request.environ["gearwsgi.job"]))


def fail(request):
    return Response(str(request.environ["gearman"].task("/flaky")))


def main():
    with Configurator(session_factory=SignedCookieSessionFactory("a secret of the tests")) as config:
        for name, path, view in (
            ("hello", "/hello/{name}", hello),
            ("login", "/login", login),
            ("queue", "/queue/{kind}", queue),
            ("index", "/default/index", index),
            ("form", "/receive/form", receive_form),
            ("raw", "/receive/raw", receive_raw),
            ("query", "/receive/query", receive_query),
            ("upload", "/receive/upload", receive_upload),
            ("defer", "/defer", defer),
            ("later", "/later", later),
            ("clean", "/tasks/clean", clean),
            ("call", "/call", call),
            ("flaky", "/flaky", flaky),
            ("long", "/long", long),
            ("fail", "/fail", fail),
        ):
            config.add_route(name, path)
            config.add_view(view, route_name=name)
        return config.make_wsgi_app()


application = GearmanMiddleware(main(), **SETTINGS)
