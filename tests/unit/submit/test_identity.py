"""As whom a task runs, with Flask-Login, and whether it still may. Django's part: tests/e2e/frameworks."""

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask, request
from flask_login import LoginManager, UserMixin, current_user, login_required, login_user

from gearwsgi import GearmanMiddleware
from gearwsgi.contrib.flask import Gearman, deferred
from gearwsgi.errors import ConfigError, InvalidTask
from gearwsgi.message.model import Message
from gearwsgi.testing import Tasks, capture

KEYS = ["k" * 32]


class User(UserMixin):
    def __init__(self, key: str) -> None:
        self.id = key
        self.active = True

    @property
    def is_active(self) -> bool:
        return self.active


class Site:
    """A site with two users and a page for members; `seen` is as whom its work was done."""

    def __init__(self, *, extension: bool = False, **settings: Any) -> None:
        self.users = {"ada": User("ada"), "eve": User("eve")}
        self.seen: list[str | None] = []
        app = self.app = Flask(__name__)
        app.secret_key = "a secret of the tests"
        manager = LoginManager(app)
        manager.user_loader(self.users.get)
        if extension:
            Gearman(app, secret_keys=KEYS, **settings)
        else:
            app.wsgi_app = GearmanMiddleware(app.wsgi_app, secret_keys=KEYS, **settings)  # type: ignore[method-assign]

        @app.post("/login/<key>")
        def login(key: str) -> str:
            login_user(self.users[key])
            return "welcome"

        @app.post("/order")
        def order() -> str:
            options = {key: value for key, value in request.args.items() if key in ("identity", "then")}
            return str(request.environ["gearman"].task("/work", {}, **options).id)

        @app.post("/work")
        @app.post("/report")
        def work() -> str:
            self.seen.append(current_user.get_id() if current_user.is_authenticated else None)
            if request.args.get("chain"):
                request.environ["gearman"].task("/work", {}, identity="user")
            return f"as {self.seen[-1]}"

        @app.post("/members")
        @login_required
        def members() -> str:
            return work()

        @app.post("/export")
        @login_required
        @deferred(identity="user")
        def export() -> str:
            return work()

    def client(self, key: str = "") -> Any:
        client = self.app.test_client()
        if key:
            assert client.post(f"/login/{key}").status_code == 200
        return client


@pytest.fixture(params=[False, True], ids=["middleware", "extension"])
def make(request: pytest.FixtureRequest) -> Callable[..., Site]:
    return lambda **settings: Site(extension=request.param, **settings)


def fates(tasks: Tasks) -> list[tuple[str, str]]:
    return [(run.fate, run.reason) for run in tasks.run(raises=False)]


def test_a_task_runs_as_the_user_who_asked_for_it_and_no_cookie_travels(make: Callable[..., Site]) -> None:
    site = make()
    with capture(site.app) as tasks:
        site.client("ada").post("/order?identity=user")
        site.client("eve").post("/order")
        site.client().post("/order?identity=user")
        assert [task.identity for task in tasks] == ["ada", None, None]
        assert b"Cookie" not in tasks[0].payload and b"X-Gearman-Identity: flask-login:ada" in tasks[0].payload
        tasks.run()
    assert site.seen == ["ada", None, None]


def test_what_follows_a_users_task_runs_as_nobody_and_with_what_is_inherited(make: Callable[..., Site]) -> None:
    site = make(inherit=["x-tenant"])
    with capture(site.app) as tasks:
        site.client("ada").post("/order?identity=user&then=/report", headers={"X-Tenant": "acme"})
        tasks.run()
        (report,) = tasks.of("/report")
        assert report.identity is None and report.headers["X-Tenant"] == "acme"
        with pytest.raises(InvalidTask, match="identity"):
            tasks.middleware.gearman.task("/work", then={"service": "/report", "identity": "user"})
    assert site.seen == ["ada", None]


def test_with_the_setting_every_task_does_unless_it_says_otherwise() -> None:
    site = Site(identity="user")
    with capture(site.app) as tasks:
        client = site.client("ada")
        client.post("/order")
        client.post("/order?identity=")
        assert [task.identity for task in tasks] == ["ada", None]
        tasks.middleware.gearman.task("/work?chain=1")  # a script has no user
        tasks.run()
        assert [task.identity for task in tasks] == ["ada", None, None, None]


def test_what_a_job_queues_runs_as_its_own_user() -> None:
    site = Site()
    with capture(site.app) as tasks:
        site.client("ada").post("/order?identity=user")
        message = Message("POST", path="/work?chain=1", id="1" * 32, identity="flask-login:eve", has_length=True)
        tasks.put(message.to_bytes())
        tasks.run()
        assert [task.identity for task in tasks] == ["ada", "eve", "eve"]
    assert site.seen == ["ada", "eve", "eve"]


def test_who_is_not_active_or_not_there_any_more_does_nothing_more(make: Callable[..., Site]) -> None:
    site = make()
    with capture(site.app) as tasks:
        for _ in range(2):
            site.client("ada").post("/order?identity=user")
        site.users["ada"].active = False
        tasks.run(1, raises=False)
        del site.users["ada"]
        tasks.run(1, raises=False)
        assert [run.reason for run in tasks.dead] == [
            "user ada is not active any more",
            "user ada is not there any more",
        ]
    assert site.seen == []


def test_a_rule_runs_as_who_asks_and_leaves_who_is_nobody_to_the_login(make: Callable[..., Site]) -> None:
    site = make(defer=[{"route": "POST /members", "identity": "user"}, "POST /report"])
    with capture(site.app) as tasks:
        assert site.client().post("/members").status_code == 401
        assert not tasks
        assert site.client("ada").post("/members").status_code == 202
        assert site.client("ada").post("/report").status_code == 202
        tasks.run()
    assert site.seen == ["ada", None]


def test_a_view_that_defers_itself_runs_as_who_has_passed_its_login(make: Callable[..., Site]) -> None:
    site = make()
    with capture(site.app) as tasks:
        assert site.client().post("/export").status_code == 401
        assert site.client("ada").post("/export").status_code == 202
        tasks.run()
    assert site.seen == ["ada"]


def test_a_view_without_flask_login_has_nobody_who_could_tell() -> None:
    app = Flask(__name__)
    wrapped = GearmanMiddleware(app.wsgi_app)

    @app.post("/order")
    def order() -> str:
        with pytest.raises(InvalidTask, match="neither has this request"):
            request.environ["gearman"].task("/work", identity="user")
        return "refused"

    app.wsgi_app = wrapped  # type: ignore[method-assign]
    assert app.test_client().post("/order").text == "refused"


def test_an_identity_is_believed_only_where_nobody_else_can_write_one() -> None:
    elsewhere = {"servers": "10.0.0.1:4730"}
    with pytest.raises(ConfigError, match="identity is set without secret_keys"):
        GearmanMiddleware(lambda environ, start: [], identity="user", **elsewhere)
    GearmanMiddleware(lambda environ, start: [], identity="user", secret_keys=KEYS, **elsewhere)
    open_site = GearmanMiddleware(lambda environ, start: [], **elsewhere)
    message = Message("POST", path="/work", id="1" * 32, identity="flask-login:ada").to_bytes()
    with capture(open_site) as tasks:
        tasks.put(message)
        assert fates(tasks) == [("dead", "no signature: what is to run as a user runs only signed")]
        environ = {"gearwsgi.user": "flask-login:ada", "REQUEST_METHOD": "POST"}
        with pytest.raises(InvalidTask, match="secret_keys"):
            type(open_site.gearman)(open_site.client, environ).task("/work", identity="user")


def test_an_unsigned_message_in_a_queue_that_takes_such_has_no_identity() -> None:
    app = GearmanMiddleware(lambda environ, start: [], secret_keys=KEYS, accept_unsigned=["job"])
    message = Message("POST", path="/work", id="1" * 32, identity="flask-login:ada").to_bytes()
    with capture(app) as tasks:
        app.client.submit([_submission(message)])
        assert "runs only signed" in fates(tasks)[0][1]


def _submission(payload: bytes) -> Any:
    from gearwsgi.wire.payload import Submission

    return Submission("job", "u", payload, id="1" * 32)


def test_an_identity_that_nobody_can_load_is_a_dead_letter_and_asking_for_one_an_error() -> None:
    app = GearmanMiddleware(lambda environ, start: [])
    for scheme, why in (("flask-login", "has none"), ("django", "JobMiddleware is not in MIDDLEWARE")):
        with capture(app) as tasks:
            tasks.put(Message("POST", path="/x", id="1" * 32, identity=f"{scheme}:1").to_bytes())
            assert why in fates(tasks)[0][1]
    with pytest.raises(InvalidTask, match="neither has this request"):
        type(app.gearman)(app.client, {"REQUEST_METHOD": "GET"}).task("/x", identity="user")
    with pytest.raises(InvalidTask, match="give 'user'"):
        app.gearman.task("/x", identity="admin")


# -- authorize ---------------------------------------------------------------------------------------------------------


def answer(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK" if environ["HTTP_X_GEARMAN_ATTEMPT"] == "2" else "500 No", [])
    return [b"done"]


def test_authorize_is_asked_before_every_attempt_and_false_is_a_dead_letter() -> None:
    asked: list[Any] = []
    may = [True, False]

    def authorize(environ: dict[str, Any], job: Any) -> bool:
        asked.append((environ["PATH_INFO"], job.service, job.attempt, job.identity))
        return may.pop(0)

    app = GearmanMiddleware(answer, authorize=authorize)
    with capture(app) as tasks:
        app.gearman.task("/x")
        assert [run.fate for run in tasks.run(until_empty=True, raises=False)] == ["retry", "dead"]
        assert tasks.dead[0].reason == "no longer allowed"
    assert asked == [("/x", "/x", 1, None), ("/x", "/x", 2, None)]


def test_authorize_that_raises_is_a_failed_attempt_and_not_a_yes() -> None:
    def authorize(environ: dict[str, Any], job: Any) -> bool:
        raise ConnectionError("the database is away")

    app = GearmanMiddleware(answer, authorize=authorize, max_attempts=2)
    with capture(app) as tasks:
        app.gearman.task("/x")
        runs = tasks.run(until_empty=True, raises=False)
        assert [run.fate for run in runs] == ["retry", "dead"]
        assert all("the database is away" in run.reason for run in runs)


def test_a_call_and_a_plain_call_are_asked_for_too() -> None:
    app = GearmanMiddleware(answer, authorize=lambda environ, job: None)  # no answer is no yes
    with capture(app) as tasks:
        assert app.gearman.call("/x").status_code == 403
        tasks.put(b'{"service": "/x"}')
        assert fates(tasks) == [("dead", "no longer allowed")]


@pytest.mark.parametrize(("setting", "value"), [("authorize", True), ("identity", "admin")])
def test_what_cant_work_is_an_error_at_the_start(setting: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=setting):
        GearmanMiddleware(answer, **{setting: value})
