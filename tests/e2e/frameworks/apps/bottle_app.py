"""Bottle, as its tutorial writes it."""

from bottle import Bottle, HTTPResponse, request, response
from notes import SAMPLES, SETTINGS, go_on, record

from gearwsgi import GearmanMiddleware

app = Bottle()
SECRET = "a secret of the tests"


def note(kind, got):
    parts = request.urlparts
    record(
        request.environ["gearwsgi.job"],
        kind=kind,
        got=got,
        url=f"{parts.scheme}://{parts.netloc}{app.get_url('hello', name='x')}",
        client=request.remote_addr,
        language=request.get_header("Accept-Language"),
        user=request.get_cookie("user", secret=SECRET),
    )
    return "noted"


@app.get("/hello/<name>", name="hello")
def hello(name):
    return f"Hello {name}"


@app.get("/login")
def login():
    response.set_cookie("user", "alice", secret=SECRET)
    return "welcome"


@app.get("/queue/<kind>")
def queue(kind):
    gearman = request.environ["gearman"]
    return str(gearman.task("testTask" if kind == "json" else f"/receive/{kind}", **SAMPLES[kind]))


@app.post("/default/index")
def index():
    return note("json", request.json)


@app.post("/receive/form")
def receive_form():
    form = request.forms.decode()
    return note("form", {"name": form.name, "tags": form.getall("tags")})


@app.post("/receive/raw")
def receive_raw():
    return note("raw", [request.body.read().hex(), request.content_type])


@app.get("/receive/query")
def receive_query():
    query = request.query.decode()
    return note("query", {"name": query.name, "tags": query.getall("tags")})


@app.post("/receive/upload")
def receive_upload():
    photo = request.files.photo
    name = photo.raw_filename
    return note("upload", [request.forms.title, name, photo.content_type, photo.file.read().hex()])


@app.post("/defer")
def defer():
    if "gearwsgi.job" not in request.environ:
        request.environ["gearman"].replay()
        return HTTPResponse("later", 202)
    return note("defer", [request.forms.name, request.query.page])


@app.get("/later")
def later():
    request.environ["gearman"].task("/tasks/clean", {"n": 1}, after_response=True)
    return "later"


@app.post("/tasks/clean")
def clean():
    return note("clean", request.json)


@app.get("/call")
def call():
    answer = request.environ["gearman"].call("GET /hello/Zo%C3%AB")
    return HTTPResponse(answer.body, answer.status)


@app.post("/flaky")
def flaky():
    if request.environ["gearwsgi.job"].attempt == 1:
        raise RuntimeError("the first attempt fails")
    return note("flaky", None)


@app.post("/long")
def long():
    return note("long", go_on(request.environ["gearwsgi.job"]))


@app.get("/fail")
def fail():
    return str(request.environ["gearman"].task("/flaky"))


application = GearmanMiddleware(app, **SETTINGS)
