"""The project in which the tests of Django's Tasks run, and the worker of what they queue."""

import os

import django

SECRET_KEY = "a secret of the tests that is as long as Django's own checks want it to be"
ALLOWED_HOSTS = ["*"]
INSTALLED_APPS = [
    "gearwsgi.contrib.django",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.admin",
]
if django.VERSION < (6, 0):
    INSTALLED_APPS.append("django_tasks")
MIDDLEWARE = [
    "gearwsgi.contrib.django.JobMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
ROOT_URLCONF = os.environ["SUITES_URLCONF"]
urlpatterns = []
WSGI_APPLICATION = "suites.wsgi.application"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
USE_TZ = True
# The worker's; each test lays its own over it.
TASKS = {
    "default": {"BACKEND": "suites.backends.Finished", "QUEUES": []},
    "immediate": {"BACKEND": "suites.backends.Finished", "QUEUES": []},
}
GEARWSGI = {"max_attempts": 1}
