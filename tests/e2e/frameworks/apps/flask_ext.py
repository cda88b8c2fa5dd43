"""Flask with the extension, made by a factory, and with Flask-WTF watching every form."""

import os

from flask import Flask, redirect, render_template_string, request, url_for
from flask_login import LoginManager, login_required
from flask_wtf import CSRFProtect, FlaskForm
from notes import SETTINGS, go_on, record
from wtforms import StringField

from gearwsgi.contrib.flask import Gearman

gearman = Gearman()
csrf = CSRFProtect()
login = LoginManager()
login.login_view = "door"
login.user_loader(lambda key: None)


class NameForm(FlaskForm):
    name = StringField()


def create_app():
    app = Flask(__name__)
    app.config["SECRET_KEY"] = "a secret of the tests"
    app.config["GEARWSGI"] = SETTINGS
    app.config["SERVER_NAME"] = os.environ.get("OUTSIDE_NAME")
    app.config["PREFERRED_URL_SCHEME"] = "https"
    for extension in (csrf, gearman) if os.environ.get("CSRF_FIRST") else (gearman, csrf):
        extension.init_app(app)
    login.init_app(app)

    @app.get("/form")
    def form():
        return render_template_string("{{ form.csrf_token.current_token }}", form=NameForm())

    @app.post("/submit")
    def submit():
        form = NameForm()
        if not form.validate_on_submit():
            return "invalid", 400
        job = request.environ.get("gearwsgi.job")
        if job is None:
            gearman.task("/submit", form={"name": form.name.data})
            return "queued"
        record(job, kind="submit", got=form.name.data, url=request.url)
        return "done"

    @app.post("/defer")
    def defer():
        job = request.environ.get("gearwsgi.job")
        if job is None:
            if request.args.get("first"):
                gearman.replay()
                return request.form["name"], 202
            name = request.form["name"]
            gearman.replay()
            return name, 202
        record(job, kind="defer", got=request.form["name"], url=request.url)
        return "done"

    def save():
        record(request.environ["gearwsgi.job"], kind="sign", got=request.form["name"], url=request.url)
        return redirect(url_for("form"))

    @app.post("/sign", defaults={"save": save})
    @app.post("/sign/members", defaults={"save": login_required(save)})
    def sign(save):
        """A form that answers by redirect, as forms do, when its work is done."""
        if "gearwsgi.job" not in request.environ:
            gearman.replay()
            return "later", 202
        return save()

    @app.post("/long")
    def long():
        job = request.environ["gearwsgi.job"]
        record(job, kind="long", got=go_on(job))
        return "done"

    @app.get("/door")
    def door():
        return "Who are you?"

    @app.get("/upper/<text>")
    def upper(text):
        return text.upper()

    @app.get("/call/<text>")
    def call(text):
        return gearman.call(f"GET /upper/{text}").text

    @app.cli.command("remind")
    def remind():
        print(gearman.task("/submit", form={"name": "from a command"}))

    return app


app = create_app()
