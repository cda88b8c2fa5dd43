"""WebOb alone, with a decorator and a dictionary for routing."""

from notes import SAMPLES, SETTINGS, go_on, record
from webob import Response
from webob.dec import wsgify

from gearwsgi import GearmanMiddleware


def note(request, kind, got):
    record(
        request.environ["gearwsgi.job"],
        kind=kind,
        got=got,
        url=request.application_url + "/hello/x",
        client=request.client_addr,
        language=str(request.accept_language),
        user=request.cookies.get("user"),
    )
    return "noted"


def hello(request, name):
    return "Hello " + name


def login(request):
    response = Response("welcome")
    response.set_cookie("user", "alice")
    return response


def queue(request, kind):
    gearman = request.environ["gearman"]
    return str(gearman.task("testTask" if kind == "json" else f"/receive/{kind}", **SAMPLES[kind]))


def index(request):
    return note(request, "json", request.json)


def receive(request, kind):
    if kind == "form":
        return note(request, kind, {"name": request.POST["name"], "tags": request.POST.getall("tags")})
    if kind == "raw":
        return note(request, kind, [request.body.hex(), request.content_type])
    if kind == "query":
        return note(request, kind, {"name": request.GET["name"], "tags": request.GET.getall("tags")})
    photo = request.POST["photo"]
    return note(request, kind, [request.POST["title"], photo.filename, photo.type, photo.file.read().hex()])


def defer(request):
    if "gearwsgi.job" not in request.environ:
        request.environ["gearman"].replay()
        return Response("later", status=202)
    return note(request, "defer", [request.POST["name"], request.GET["page"]])


def later(request):
    request.environ["gearman"].task("/tasks/clean", {"n": 1}, after_response=True)
    return "later"


def clean(request):
    return note(request, "clean", request.json)


def call(request):
    return request.environ["gearman"].call("GET /hello/Zo%C3%AB")


def flaky(request):
    if request.environ["gearwsgi.job"].attempt == 1:
        raise RuntimeError("the first attempt fails")
    return note(request, "flaky", None)


def long(request):
    return note(request, "long", go_on(request.environ["gearwsgi.job"]))


def fail(request):
    return str(request.environ["gearman"].task("/flaky"))


PAGES = {page.__name__: page for page in (hello, login, queue, receive, defer, later, call, flaky, long, fail)}
PAGES |= {"default/index": index, "tasks/clean": clean}


@wsgify
def app(request):
    path = request.path_info.strip("/")
    if path in PAGES:
        return PAGES[path](request)
    name, _, rest = path.partition("/")
    return PAGES[name](request, rest) if name in PAGES else Response("no such page", status=404)


application = GearmanMiddleware(app, **SETTINGS)
