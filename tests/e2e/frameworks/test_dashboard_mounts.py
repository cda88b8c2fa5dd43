"""The dashboard in applications: the code of its page in the documentation, each mount behind the site's own login."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.dashboards import fill, middleware
from tests.support import free_port

PAGE = Path(__file__).parents[3] / "docs" / "dashboard.md"
FILE = re.compile(r"<!-- file: (\S+) -->\n```python\n(.*?)\n```", re.DOTALL)
COMMON = """
import re, sys, warnings
from webtest import TestApp

def use(site, mount, dead):
    page = site.get(mount + "/dead", status=200)
    assert "mail.welcome" in page.text
    for link in re.findall(r'(?:href|src|action)="([^"]+)"', page.text):
        assert link.startswith(("#", mount + "/")), link
    form = next(form for form in page.forms.values() if form.action == mount + "/dead/discard" or "one" in form.fields)
    csrf = form["csrf"].value
    site.post(mount + "/dead/discard", {"one": dead, "csrf": "0" * 64}, status=403)
    site.post(mount + "/dead/discard", {"one": dead, "csrf": csrf}, status=303)
    site.get(mount + "/static/dashboard.css", status=200)
    site.get(mount, status=308)
"""
PLAIN = """
from plain import application
assert TestApp(application).get("/").text == "the site"
TestApp(application).get("/tasks/dead", status=403)
use(TestApp(application, {"REMOTE_USER": "ada"}), "/tasks", sys.argv[1])
"""
FLASK = """
from app import app
for name, status in (("", 403), ("bob", 403)):
    site = TestApp(app)
    if name:
        assert site.get("/login/" + name).text == "welcome"
    site.get("/tasks/dead", status=status)
site = TestApp(app)
site.get("/login/ada")
use(site, "/tasks", sys.argv[1])
"""
SETTINGS = """
SECRET_KEY = "a secret of the tests that is as long as Django's own checks want it to be"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "mysite.urls"
WSGI_APPLICATION = "mysite.wsgi.application"
INSTALLED_APPS = ["django.contrib." + name for name in ("admin", "auth", "contenttypes", "sessions", "messages")]
INSTALLED_APPS += ["gearwsgi.contrib.django"]
MIDDLEWARE = [
    "gearwsgi.contrib.django.JobMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True, "OPTIONS": {
    "context_processors": ["django.template.context_processors.request", "django.contrib.auth.context_processors.auth",
                           "django.contrib.messages.context_processors.messages"]}}]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3"}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
"""
WSGI = """
import os
from gearwsgi.contrib.django import get_wsgi_application
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")
application = get_wsgi_application()
"""
DJANGO = """
from mysite.wsgi import application
from django.contrib.auth.models import User
from django.core.management import call_command
from django.urls import reverse

call_command("migrate", verbosity=0, skip_checks=True)
User.objects.create_user("ada", password="door", is_staff=True)
User.objects.create_user("bob", password="door")
assert reverse("gearwsgi:page", args=["dead"]) == "/admin/tasks/dead"

def log_in(name):
    site = TestApp(application)
    way = site.get("/admin/tasks/dead?service=mail.welcome", status=302)
    assert way.location.startswith("/admin/login/?next=/admin/tasks/dead%3Fservice"), way.location
    form = way.follow().form
    form["username"], form["password"] = name, "door"
    return site, form.submit()

site, answer = log_in("ada")
assert answer.location == "/admin/tasks/dead?service=mail.welcome"
page = site.get("/admin/tasks/dead")
assert ">ada<" in page.text and page.headers["X-Frame-Options"] == "DENY"
assert page.headers["Referrer-Policy"] == "no-referrer"
site.get("/admin/tasks", status=301)
mount = "/admin/tasks"
form = next(form for form in page.forms.values() if "one" in form.fields)
site.post(mount + "/dead/discard", {"one": sys.argv[1], "csrf": "0" * 64}, status=403)
site.post(mount + "/dead/discard", {"one": sys.argv[1], "csrf": form["csrf"].value}, status=303)
site.get(mount + "/static/dashboard.css", status=200)

bob = TestApp(application)
form = bob.get("/admin/login/?next=/admin/").form
from django.test import Client
client = Client()
client.force_login(User.objects.get(username="bob"))
bob.set_cookie("sessionid", client.cookies["sessionid"].value)
bob.get("/admin/tasks/dead", status=403)
"""


@pytest.mark.parametrize("name", ["plain", "flask", "django"])
def test_the_mount_of_the_page_is_behind_the_sites_login(name: str, tmp_path: Path) -> None:
    files = dict(FILE.findall(PAGE.read_text()))
    files |= {"mysite/settings.py": SETTINGS, "mysite/wsgi.py": WSGI, "mysite/__init__.py": ""}
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    address = f"127.0.0.1:{free_port()}"
    shop = middleware(tmp_path / "state", address)
    ids = fill(shop.settings, tasks=10, dead=2)
    shop.client.close()
    done = subprocess.run(
        [sys.executable, "-c", COMMON + {"plain": PLAIN, "flask": FLASK, "django": DJANGO}[name], ids["dead"]],
        cwd=tmp_path, capture_output=True, text=True, timeout=60,
        env={"PATH": "", "GEARMAN_SERVERS": address, "GEARWSGI_STATE_DIR": str(tmp_path / "state"),
             "GEARWSGI_RECORDS": "sqlite"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"dashboard: ada discarded dead letter {ids['dead']}" in done.stderr
