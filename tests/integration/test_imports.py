"""What a fresh process has after an import: the supervisor carries nothing of an application."""

import subprocess
import sys
from pathlib import Path


def loaded_by(module: str) -> set[str]:
    """The top-level packages that a fresh process has after an import."""
    code = f"import sys, {module}; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_supervisor_imports_neither_a_framework_nor_what_only_other_commands_need() -> None:
    loaded = loaded_by("gearwsgi.worker.supervisor")
    assert "gearwsgi" in loaded
    frameworks = {"flask", "django", "pyramid", "bottle", "falcon", "cherrypy", "werkzeug", "jinja2"}
    assert not loaded & (
        frameworks | {"rich", "waitress", "watchfiles", "pytest", "sqlite3", "asyncio", "prometheus_client"}
    )


def test_where_there_is_no_schedule_nothing_of_it_is_imported() -> None:
    loaded = loaded_by("gearwsgi.worker.supervisor, gearwsgi; gearwsgi.GearmanMiddleware(lambda environ, start: [])")
    assert "gearwsgi" in loaded and not loaded & {"cronsim", "zoneinfo", "jinja2"}


def test_importing_the_package_imports_no_framework() -> None:
    loaded = loaded_by("gearwsgi")
    assert not loaded & {"flask", "django", "pyramid", "bottle", "falcon", "cherrypy", "rich", "click", "pytest"}


def test_a_web_process_that_asks_for_no_record_has_no_database_in_it() -> None:
    loaded = loaded_by("gearwsgi.submit.middleware")
    assert "gearwsgi" in loaded and not loaded & {"sqlite3", "psycopg", "webob", "rich", "click"}


def test_queueing_a_task_imports_no_database_no_opentelemetry_and_no_prometheus(tmp_path: Path) -> None:
    code = f"""
import sys
from pathlib import Path
from gearwsgi import GearmanMiddleware
application = GearmanMiddleware(lambda environ, start: [], servers="127.0.0.1:1", state_dir={str(tmp_path)!r})
application.gearman.task("a.b")
print(*sorted({{name.partition(".")[0] for name in sys.modules}}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & {
        "opentelemetry", "prometheus_client", "setproctitle", "sqlite3", "psycopg",
    }  # fmt: skip
    assert not list(tmp_path.glob("records*"))
