"""Before Django 6.0: django-tasks under the names that Django's tests of its own Tasks know."""

import importlib
import logging
import sys

import django

from gearwsgi.contrib.django.task_api import ROOT

ERRORS = {"InvalidTask": "InvalidTaskError", "InvalidTaskBackend": "InvalidTaskBackendError"}
"""Errors by Django's names, and by those of django-tasks."""
MODULES = (
    "",
    ".base",
    ".exceptions",
    ".signals",
    ".backends",
    ".backends.base",
    ".backends.dummy",
    ".backends.immediate",
)


def stand_in():
    """Have django-tasks stand for `django.tasks`, where there is none."""
    if ROOT == "django.tasks":
        return
    for name in MODULES:
        sys.modules[f"django.tasks{name}"] = importlib.import_module(ROOT + name)
    django.tasks = package = sys.modules["django.tasks"]
    package.Task = package.base.Task
    for name, known in ERRORS.items():
        setattr(package.exceptions, name, getattr(package.exceptions, known))
    logging.getLogger(ROOT).parent = logging.getLogger("django.tasks")
