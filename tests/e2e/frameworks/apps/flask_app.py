"""Flask, as its quickstart writes it."""

from flask import Flask, request, session, url_for
from notes import SAMPLES, SETTINGS, go_on, record

from gearwsgi import GearmanMiddleware

app = Flask(__name__)
app.secret_key = "a secret of the tests"


def note(kind, got):
    record(
        request.environ["gearwsgi.job"],
        kind=kind,
        got=got,
        url=url_for("hello", name="x", _external=True),
        client=request.remote_addr,
        language=request.accept_languages.best,
        user=session.get("user"),
    )
    return "noted"


@app.get("/hello/<name>")
def hello(name):
    return f"Hello {name}"


@app.get("/login")
def login():
    session["user"] = "alice"
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
    return note("form", {"name": request.form["name"], "tags": request.form.getlist("tags")})


@app.post("/receive/raw")
def receive_raw():
    return note("raw", [request.get_data().hex(), request.content_type])


@app.get("/receive/query")
def receive_query():
    return note("query", {"name": request.args["name"], "tags": request.args.getlist("tags")})


@app.post("/receive/upload")
def receive_upload():
    photo = request.files["photo"]
    return note("upload", [request.form["title"], photo.filename, photo.content_type, photo.read().hex()])


@app.post("/defer")
def defer():
    if "gearwsgi.job" not in request.environ:
        request.environ["gearman"].replay()
        return "later", 202
    return note("defer", [request.form["name"], request.args["page"]])


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
    return answer.body, answer.status_code


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


app.wsgi_app = GearmanMiddleware(app.wsgi_app, **SETTINGS)
