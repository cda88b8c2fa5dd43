"""Falcon, with resources."""

import falcon
from notes import SAMPLES, SETTINGS, go_on, record

from gearwsgi import GearmanMiddleware


def note(req, resp, kind, got):
    record(
        req.env["gearwsgi.job"],
        kind=kind,
        got=got,
        url=req.prefix + "/hello/x",
        client=req.remote_addr,
        language=req.get_header("Accept-Language"),
        user=req.cookies.get("user"),
    )
    resp.text = "noted"


class Hello:
    def on_get(self, req, resp, name):
        resp.text = f"Hello {name}"


class Login:
    def on_get(self, req, resp):
        resp.set_cookie("user", "alice")
        resp.text = "welcome"


class Queue:
    def on_get(self, req, resp, kind):
        gearman = req.env["gearman"]
        resp.text = str(gearman.task("testTask" if kind == "json" else f"/receive/{kind}", **SAMPLES[kind]))


class Index:
    def on_post(self, req, resp):
        note(req, resp, "json", req.media)


class Receive:
    def on_post_form(self, req, resp):
        note(req, resp, "form", req.media)

    def on_post_raw(self, req, resp):
        note(req, resp, "raw", [req.bounded_stream.read().hex(), req.content_type])

    def on_get_query(self, req, resp):
        note(req, resp, "query", {"name": req.get_param("name"), "tags": req.get_param_as_list("tags")})

    def on_post_upload(self, req, resp):
        got = []
        for part in req.get_media():
            if part.name == "photo":
                got += [part.filename, part.content_type, part.stream.read().hex()]
            else:
                got.append(part.text)
        note(req, resp, "upload", got)


class Defer:
    def on_post(self, req, resp):
        if "gearwsgi.job" not in req.env:
            req.env["gearman"].replay()
            resp.status = 202
            return
        note(req, resp, "defer", [req.media["name"], req.get_param("page")])


class Later:
    def on_get(self, req, resp):
        req.env["gearman"].task("/tasks/clean", {"n": 1}, after_response=True)
        resp.text = "later"


class Clean:
    def on_post(self, req, resp):
        note(req, resp, "clean", req.media)


class Call:
    def on_get(self, req, resp):
        answer = req.env["gearman"].call("GET /hello/Zo%C3%AB")
        resp.data, resp.status = answer.body, answer.status


class Flaky:
    def on_post(self, req, resp):
        if req.env["gearwsgi.job"].attempt == 1:
            raise RuntimeError("the first attempt fails")
        note(req, resp, "flaky", None)


class Long:
    def on_post(self, req, resp):
        note(req, resp, "long", go_on(req.env["gearwsgi.job"]))


class Fail:
    def on_get(self, req, resp):
        resp.text = str(req.env["gearman"].task("/flaky"))


app = falcon.App()
app.add_route("/hello/{name}", Hello())
app.add_route("/login", Login())
app.add_route("/queue/{kind}", Queue())
app.add_route("/default/index", Index())
for kind in ("form", "raw", "query", "upload"):
    app.add_route(f"/receive/{kind}", Receive(), suffix=kind)
app.add_route("/defer", Defer())
app.add_route("/later", Later())
app.add_route("/tasks/clean", Clean())
app.add_route("/call", Call())
app.add_route("/flaky", Flaky())
app.add_route("/long", Long())
app.add_route("/fail", Fail())

application = GearmanMiddleware(app, **SETTINGS)
