"""`gearwsgi dashboard`: the dashboard, served on its own."""

import sys
import threading
from typing import Any

import click
import waitress

from ..address import parse_listen
from ..app.loading import load_application
from ..dashboard import Dashboard
from ..errors import ConfigError, StartError
from ..submit.middleware import GearmanMiddleware
from .signals import asked_to_end


@click.command()
@click.argument("app", metavar="[MODULE:NAME]", required=False)
@click.option("--listen", default="127.0.0.1:8098", show_default=True, metavar="HOST:PORT", help="Port 0: a free one.")
@click.option("--read-only", is_flag=True, help="Show, and let nobody change anything.")
@click.option("--trace-url", default="", metavar="URL", help="A trace's address, with {trace_id} in it.")
def dashboard(app: str | None, listen: str, read_only: bool, trace_url: str) -> None:
    """Serve the dashboard, and print the address that opens it: it holds a token that is new at each start.

    It goes by the settings of the WSGI application MODULE:NAME, or else by those of the environment.
    """
    middleware = load_application(app)[1] if app else GearmanMiddleware(_no_application)
    made = Dashboard(middleware, read_only=read_only, trace_url=trace_url, app=app or "")
    where = parse_listen(listen)
    try:
        server: Any = waitress.create_server(made, host=where.host, port=where.port, threads=4, ident="gearwsgi")
    except OSError as error:
        raise StartError(f"can't listen on {listen}: {error.strerror or error}; --listen chooses another") from error
    where = where._replace(port=where.port or getattr(server, "effective_port", 0))
    if not where.is_loopback:
        click.echo(f"others can reach {where}: put it behind HTTPS, or the token can be read on its way", err=True)
    wait = asked_to_end()
    threading.Thread(target=server.run, daemon=True, name="waitress").start()
    click.echo(f"http://{where}/?token={made.token}")
    sys.stdout.flush()
    wait()
    server.task_dispatcher.shutdown()  # once what is being answered is


def _no_application(environ: Any, start_response: Any) -> Any:
    raise ConfigError("the dashboard runs no task")
