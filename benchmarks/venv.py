"""A virtual environment of the benchmarks' own: the peers stay out of yours. Standard library only."""

import os
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / "benchmarks" / ".venv"
PEERS = (
    "celery[redis]>=5.4",
    "rq>=2",
    "huey[redis]>=2.5",
    "dramatiq[redis]>=1.17",
    "flask>=3",
    "waitress>=3",
    "django>=5.2",
    "django-tasks>=0.12; python_version < '3.12'",
    "django-tasks-db>=0.13",
    "psycopg[binary]>=3.2",
    "py-spy>=0.4",  # benchmarks.cost
)


def enter(module: str) -> None:
    """Go on in the benchmarks' environment, which is made at the first call; return if this is it already."""
    # Debian has gearmand where the path of a plain user does not lead.
    os.environ["PATH"] = f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin:/sbin"
    if Path(sys.prefix).resolve() == HOME.resolve():
        return
    python = HOME / "bin" / "python"
    mark = HOME / "installed"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = "\n".join((*PEERS, *project["dependencies"], *project["scripts"]))
    if not mark.exists() or mark.read_text() != wanted:
        print(f"Installing the peers into {HOME} …", file=sys.stderr)
        if not python.exists():
            venv.create(HOME, with_pip=True, clear=True)
        pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        if subprocess.run([*pip, "-e", str(ROOT), *PEERS], check=False).returncode:
            sys.exit("The peers could not be installed; is a package index reachable?")
        mark.write_text(wanted)
    os.chdir(ROOT)
    os.execv(python, [str(python), "-m", module, *sys.argv[1:]])
