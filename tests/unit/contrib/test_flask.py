"""Flask's extension, without a worker."""

from typing import Any

import pytest
from flask import Flask

from gearwsgi import GearmanMiddleware
from gearwsgi.contrib.flask import Gearman
from gearwsgi.errors import ConfigError

SERVER = {"servers": "127.0.0.1:1"}


def test_it_wraps_the_application_with_the_config_over_its_own_keywords() -> None:
    app = Flask(__name__)
    app.config["GEARWSGI"] = {"task": {"testTask": "Test.task"}, "queue": "mail"}
    Gearman(app, **SERVER, queue="other")
    middleware = app.extensions["gearwsgi"]
    assert app.wsgi_app is middleware
    assert isinstance(middleware, GearmanMiddleware)
    assert middleware.settings.queue == "mail"
    assert middleware.settings.tasks["testTask"].target == "Test.task"


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"severs": "x:1"}, "did you mean 'servers'"),
        (["x:1"], "give a dict"),
        ({"servers": ""}, "servers is empty"),
    ],
)
def test_a_wrong_config_is_an_error_at_start(config: Any, said: str) -> None:
    app = Flask(__name__)
    app.config["GEARWSGI"] = config
    with pytest.raises(ConfigError, match=said):
        Gearman(app)


def test_two_of_them_or_one_around_a_wrapped_application_are_an_error() -> None:
    app = Flask(__name__)
    Gearman(app, **SERVER)
    with pytest.raises(ConfigError, match="extension already"):
        Gearman(app, **SERVER)
    other = Flask(__name__)
    other.wsgi_app = GearmanMiddleware(other.wsgi_app, **SERVER)  # type: ignore[method-assign,arg-type]
    with pytest.raises(ConfigError, match="wrap it once"):
        Gearman(other, **SERVER)


def test_one_extension_serves_several_applications_and_says_where_it_has_none() -> None:
    gearman = Gearman()
    first, second = Flask("first"), Flask("second")
    for app in (first, second):
        gearman.init_app(app)
    with first.app_context():
        assert gearman.current._client is first.extensions["gearwsgi"].client
    with second.test_request_context("/"):
        assert gearman.current._client is second.extensions["gearwsgi"].client
    with pytest.raises(ConfigError, match="no application"):
        gearman.task("default.index")


def test_in_a_request_it_is_the_requests_own() -> None:
    app = Flask(__name__)
    gearman = Gearman(app, **SERVER)

    @app.get("/")
    def index() -> str:
        from flask import request

        return str(gearman.current is request.environ["gearman"])

    assert app.test_client().get("/").text == "True"
