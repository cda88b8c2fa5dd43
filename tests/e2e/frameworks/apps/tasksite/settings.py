"""A project with Django's own Tasks; it has a catch-all route, and a middleware that chooses tenant and URLconf."""

import json
import os
from pathlib import Path

import django

SECRET_KEY = "a secret of the tests that is as long as Django's own checks want it to be"
ALLOWED_HOSTS = ["*"]
INSTALLED_APPS = ["gearwsgi.contrib.django", "tasksite.shop"]
if django.VERSION < (6, 0):
    INSTALLED_APPS.append("django_tasks")
MIDDLEWARE = [
    "gearwsgi.contrib.django.JobMiddleware",
    "tasksite.shop.tenants",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
]
ROOT_URLCONF = "tasksite.nothing"
WSGI_APPLICATION = "tasksite.wsgi.application"
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": Path(__file__).parent.parent / "tasks.sqlite3",
        "OPTIONS": {"timeout": 30},
        "ATOMIC_REQUESTS": True,
    }
}
USE_TZ = True
TIME_ZONE = "UTC"

TASKS = {
    "default": {
        "BACKEND": "gearwsgi.contrib.django.tasks.GearmanBackend",
        "QUEUES": ["default", "unserved"],
        "OPTIONS": {"max_attempts": 2, "backoff": (0.01, 0.05), "queues": {"mails": "mail"}},
    },
    "now": {
        "BACKEND": "gearwsgi.contrib.django.tasks.GearmanBackend",
        "ENQUEUE_ON_COMMIT": False,
        "OPTIONS": {"max_attempts": 1},
    },
}
GEARWSGI = {"records": "sqlite", "queues": ["default", "mail"], **json.loads(os.environ.get("SETTINGS", "{}"))}
