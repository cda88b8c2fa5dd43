"""CherryPy, with its tree of objects."""

import cherrypy
from notes import SAMPLES, SETTINGS, go_on, record

from gearwsgi import GearmanMiddleware


def environ():
    return cherrypy.request.wsgi_environ


def note(kind, got):
    user = cherrypy.request.cookie.get("user")
    record(
        environ()["gearwsgi.job"],
        kind=kind,
        got=got,
        url=cherrypy.url("/hello/x"),
        client=cherrypy.request.remote.ip,
        language=cherrypy.request.headers.get("Accept-Language"),
        user=user and user.value,
    )
    return "noted"


class Default:
    @cherrypy.expose
    @cherrypy.tools.json_in()
    def index(self):
        return note("json", cherrypy.request.json)


class Receive:
    @cherrypy.expose
    def form(self, name, tags):
        return note("form", {"name": name, "tags": tags})

    @cherrypy.expose
    def raw(self):
        request = cherrypy.request
        return note("raw", [request.body.read().hex(), request.headers["Content-Type"]])

    @cherrypy.expose
    def query(self, name, tags):
        return note("query", {"name": name, "tags": tags})

    @cherrypy.expose
    def upload(self, title, photo):
        name = photo.filename.encode("latin-1").decode()  # CherryPy reads headers as latin-1
        return note("upload", [title, name, str(photo.content_type), photo.file.read().hex()])


class Tasks:
    @cherrypy.expose
    @cherrypy.tools.json_in()
    def clean(self):
        return note("clean", cherrypy.request.json)


class Root:
    def __init__(self):
        self.default = Default()
        self.receive = Receive()
        self.tasks = Tasks()

    @cherrypy.expose
    def hello(self, name):
        return f"Hello {name}"

    @cherrypy.expose
    def login(self):
        cherrypy.response.cookie["user"] = "alice"
        return "welcome"

    @cherrypy.expose
    def queue(self, kind):
        gearman = environ()["gearman"]
        return str(gearman.task("testTask" if kind == "json" else f"/receive/{kind}", **SAMPLES[kind]))

    @cherrypy.expose
    def defer(self, name=None, page=None):
        if "gearwsgi.job" not in environ():
            # CherryPy has parsed the form: waitress can go back to its beginning.
            environ()["gearman"].replay()
            cherrypy.response.status = 202
            return "later"
        return note("defer", [name, page])

    @cherrypy.expose
    def later(self):
        environ()["gearman"].task("/tasks/clean", {"n": 1}, after_response=True)
        return "later"

    @cherrypy.expose
    def call(self):
        answer = environ()["gearman"].call("GET /hello/Zo%C3%AB")
        cherrypy.response.status = answer.status
        return answer.body

    @cherrypy.expose
    def flaky(self):
        if environ()["gearwsgi.job"].attempt == 1:
            raise RuntimeError("the first attempt fails")
        return note("flaky", None)

    @cherrypy.expose
    def long(self):
        return note("long", go_on(environ()["gearwsgi.job"]))

    @cherrypy.expose
    def fail(self):
        return str(environ()["gearman"].task("/flaky"))


cherrypy.config.update({"environment": "embedded"})
app = cherrypy.Application(Root(), script_name=None)
application = GearmanMiddleware(app, **SETTINGS)
