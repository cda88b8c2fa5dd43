"""The application that gearwsgi's worker runs the tasks through."""

import os

from gearwsgi.contrib.django import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "benchmarks.peers.django_site.settings")

application = get_wsgi_application()
