"""Django's app, so that `manage.py gearman_worker` is known."""

from django.apps import AppConfig


class GearwsgiConfig(AppConfig):  # type: ignore[misc]
    """`gearwsgi.contrib.django` in INSTALLED_APPS."""

    name = "gearwsgi.contrib.django"
    label = "gearwsgi"
    verbose_name = "gearwsgi"
