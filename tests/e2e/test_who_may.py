"""As whom a task runs, and whether it still may: real processes, signed messages, and `dead retry` that asks again."""

import json

from tests.serving import WebServer
from tests.support import Bench, until

APP = """
import json, os
from flask import Flask, request
from flask_login import LoginManager, UserMixin, current_user, login_required, login_user
from gearwsgi import GearmanMiddleware

app = Flask(__name__)
app.secret_key = "a secret of the tests"
login = LoginManager(app)

def users():
    with open("users.json") as file:
        return json.load(file)

class User(UserMixin):
    def __init__(self, key):
        self.id = key

    @property
    def is_active(self):
        return users()[self.id] != "blocked"

login.user_loader(lambda key: User(key) if key in users() else None)

@app.post("/login/<key>")
def enter(key):
    login_user(User(key))
    return "welcome"

@app.post("/order")
@login_required
def order():
    return request.environ["gearman"].task("/work", {}, identity="user", max_attempts=1000).id

@app.post("/work")
@login_required
def work():
    fd = os.open(os.environ["RECORD"], os.O_WRONLY | os.O_APPEND)
    os.write(fd, f"{current_user.id}\\n".encode())
    os.close(fd)
    return "done"

def authorize(environ, job):
    found = users()[job.identity]
    if found == "unknown":
        raise ConnectionError("nobody can tell")
    return found != "guest"

application = app
app.wsgi_app = GearmanMiddleware(
    app.wsgi_app, authorize=authorize, secret_keys=["k" * 32], records="sqlite", backoff_min=0.01, backoff_max=0.01
)
"""


def test_a_task_runs_as_who_asked_while_that_user_may_and_a_retried_letter_is_asked_for_again(site: Bench) -> None:
    (site.folder / "members.py").write_text(APP)

    def now(role: str) -> None:
        (site.folder / "users.json").write_text(json.dumps({"ada": role}))

    def dead() -> list[str]:
        return [letter["reason"] for letter in site.dead()]

    now("editor")
    web = WebServer(site.folder, "members:application", site.env).ready()
    try:
        cookie = (web.post("/login/ada").header("Set-Cookie") or "").partition(";")[0]
        assert web.post("/order").status == 401
        task = web.post("/order", Cookie=cookie).text
        now("guest")
        worker = site.worker("--workers", "1", app="members:application")
        assert until(dead, "the dead letter") == ["no longer allowed"]
        site.run("dead", "retry", task, "--app", "members:application")
        worker.wait_for("dead no longer allowed", 2)
        until(lambda: dead() == ["no longer allowed"], "its second letter")
        now("blocked")
        site.run("dead", "retry", task, "--app", "members:application")
        worker.wait_for("dead user ada is not active any more")
        until(dead, "its third letter")
        assert site.lines() == []
        now("unknown")  # who can't be asked says neither yes nor no
        site.run("dead", "retry", task, "--app", "members:application")
        worker.wait_for("failed ConnectionError: nobody can tell")
        now("editor")
        until(lambda: site.lines() == ["ada"], "its run")
        assert dead() == []
    finally:
        web.stop()
