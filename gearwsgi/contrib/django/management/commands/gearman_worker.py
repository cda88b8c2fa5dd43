"""`manage.py gearman_worker`: `gearwsgi worker` for the project's WSGI_APPLICATION."""

import os
import sys
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, handle_default_options


class Command(BaseCommand):  # type: ignore[misc]
    """Turns into `gearwsgi worker`, and takes its options: the parent of workers must not have loaded the project."""

    help = "Run jobs through WSGI_APPLICATION. The options are those of `gearwsgi worker`."

    def run_from_argv(self, argv: list[str]) -> None:
        """Take Django's `--settings` and `--pythonpath`, and hand all else on."""
        parser = self.create_parser(argv[0], argv[1], allow_abbrev=False, add_help=False)
        options, arguments = parser.parse_known_args(argv[2:])
        handle_default_options(options)
        try:
            self.handle(*arguments)
        except CommandError as error:
            self.stderr.write(f"CommandError: {error}")
            sys.exit(error.returncode)

    def handle(self, *arguments: str, **options: Any) -> None:
        """Replace this process by the worker.

        Raises:
            CommandError: there is no WSGI_APPLICATION.
        """
        module, _, name = (getattr(settings, "WSGI_APPLICATION", None) or "").rpartition(".")
        if not module:
            raise CommandError("WSGI_APPLICATION is not set: give 'mysite.wsgi.application'")
        # The worker imports from its current folder; manage.py may lie elsewhere.
        paths = [sys.path[0] or os.getcwd(), os.environ.get("PYTHONPATH", "")]
        environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
        command = [sys.executable, "-m", "gearwsgi", "worker", f"{module}:{name}", *arguments]
        sys.stdout.flush()
        sys.stderr.flush()
        os.execve(sys.executable, command, environ)
