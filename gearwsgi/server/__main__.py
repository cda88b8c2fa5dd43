"""`python -m gearwsgi.server`, which is also the command `gearwsgi server`."""

import sys
from pathlib import Path
from typing import Any

import click

from .main import serve
from .protocol import MAX_PACKET

FILE = click.Path(dir_okay=False, path_type=Path)


@click.command("server")
@click.option("--listen", default="127.0.0.1:4730", show_default=True, metavar="HOST:PORT")
@click.option("--state-dir", default="var/gearwsgi", show_default=True, envvar="GEARWSGI_STATE_DIR", metavar="DIR")
@click.option("--durability", default="normal", show_default=True, type=click.Choice(["normal", "full"]),
              help="normal survives a crash of the process, full one of the machine.")  # fmt: skip
@click.option("--job-retries", default=0, show_default=True, type=click.IntRange(0), metavar="N",
              help="Hand a job out N times at most, then keep it in dead/; 0 is without end.")  # fmt: skip
@click.option("--max-packet", default=MAX_PACKET, show_default=True, type=click.IntRange(1024), metavar="BYTES")
@click.option("--tls-cert", type=FILE, help="Serve TLS with this certificate (PEM).")
@click.option("--tls-key", type=FILE, help="The certificate's key, if it is in a file of its own.")
@click.option("--tls-ca", type=FILE, help="Let in only clients with a certificate from this authority.")
@click.option("--parent-fd", type=int, hidden=True)
def command(**options: Any) -> None:
    """Run the embedded Gearman job server."""
    sys.exit(serve(**options))


if __name__ == "__main__":
    command(prog_name="gearwsgi server")
