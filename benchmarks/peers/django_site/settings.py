"""Small, and the same for both: which backend is the default one says BENCH_BACKEND."""

import os
from urllib.parse import urlsplit

import django

_URL = urlsplit(os.environ["BENCH_POSTGRES"])
SECRET_KEY = "of the benchmarks, where nobody else comes"
ALLOWED_HOSTS = ["localhost"]
ROOT_URLCONF = "benchmarks.peers.django_site.urls"
WSGI_APPLICATION = "benchmarks.peers.django_site.wsgi.application"
INSTALLED_APPS = ["gearwsgi.contrib.django", "django_tasks_db"]
if django.VERSION < (6, 0):
    INSTALLED_APPS.append("django_tasks")
MIDDLEWARE = ["gearwsgi.contrib.django.JobMiddleware"]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": _URL.hostname,
        "PORT": _URL.port,
        "USER": _URL.username,
        "NAME": _URL.path.strip("/"),
        "CONN_MAX_AGE": None,
    }
}
USE_TZ = True
BACKENDS = {
    "gearwsgi": "gearwsgi.contrib.django.tasks.GearmanBackend",
    "django-tasks-db": "django_tasks_db.DatabaseBackend",
}
TASKS = {"default": {"BACKEND": BACKENDS[os.environ.get("BENCH_BACKEND", "gearwsgi")]}}
GEARWSGI = {
    "servers": os.environ["BENCH_GEARMAN"],
    "state_dir": os.environ["BENCH_STATE_DIR"],
    "records": os.environ["BENCH_POSTGRES"],
}
