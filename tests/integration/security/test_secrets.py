"""Secrets: in no log, status, list, process title or error; and what a stranger wrote obeys no terminal."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from gearwsgi.state.reproduce import _quote
from tests.integration.security.conftest import KEY, Attacker
from tests.support import Bench, until

SECRETS = {
    "Authorization": "Bearer hush",
    "Cookie": "session=hush; b=hush",
    "X-CSRF-Token": "hush",
    "X-Csrftoken": "hush",
    "X-XSRF-TOKEN": "hush",
    "Proxy-Authorization": "hush",
    "X-Api-Key": "hush",
    "X-Internal": "hush",
}


def test_secrets_are_in_no_log_status_list_or_command_line(embedded_site: Bench) -> None:
    site = embedded_site
    settings = {"secret_keys": [KEY], "redact": ["X_Internal"]}
    (site.folder / "leaky.py").write_text(
        "import os, time\nfrom gearwsgi import GearmanMiddleware\n"
        "HEADERS = [('Set-Cookie', 'session=hush'), ('X-Internal', 'hush'), ('X-A', 'fine')]\n"
        "def app(environ, start_response):\n"
        "    if environ['PATH_INFO'] == '/hang':\n"
        "        while not os.path.exists('go'):\n"
        "            time.sleep(0.01)\n"
        "    start_response('404 Not Found', HEADERS)\n"
        "    return [b'no page']\n"
        "application = GearmanMiddleware(app, redact=['X_Internal'])\n"
    )
    env = {"GEARWSGI_SECRET_KEYS": KEY}
    worker = site.worker("--workers", "1", app="leaky:application", env=env)
    app = site.app(**settings)
    tasks = [app.gearman.task(path, {"a": 1}, headers=SECRETS) for path in ("/x", "/hang")]
    unsigned = site.app()
    tasks.append(unsigned.gearman.task("/x", headers=SECRETS))
    worker.wait_for("/hang")
    shown = [path.read_text() for path in (site.state_dir / "run").glob("*.json")]

    def cli(*arguments: str) -> str:
        done = subprocess.run(
            [*site_command(), *arguments, "--app", "leaky:application"],
            cwd=site.folder,
            env={**os.environ, **site.env, **env},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    shown.append(cli("status"))
    (site.folder / "go").touch()
    until(lambda: len(list((site.state_dir / "dead").glob("*.http"))) == 3, "three dead letters")
    shown += [cli("dead", "list"), worker.log]
    for name in [path.stem for path in (site.state_dir / "dead").glob("*.http")]:
        text = cli("dead", "show", name)
        assert "X-CSRF-Token: [redacted]" in text and "X-Internal: [redacted]" in text
        shown.append(text)
    shown.append(cli("dead", "curl", name))
    assert "session=hush" in cli("dead", "show", name, "--secrets")
    assert "Set-Cookie: [redacted]" in "".join(shown) and "X-A: fine" in "".join(shown)
    for text in shown:
        assert "hush" not in text, text


def site_command() -> list[str]:
    import sys

    return [sys.executable, "-m", "gearwsgi"]


def test_no_key_is_in_the_command_line_of_any_process_of_a_worker(embedded_site: Bench) -> None:
    worker = embedded_site.worker("--workers", "1", env={"SETTINGS": json.dumps({"secret_keys": [KEY]})})
    pids = until(worker.children, "the worker process")
    parent = Path(f"/proc/{pids[0]}/stat")
    if not parent.exists():
        pytest.skip("no /proc here")
    forkserver = int(parent.read_text().rpartition(")")[2].split()[1])
    assert int(Path(f"/proc/{forkserver}/stat").read_text().rpartition(")")[2].split()[1]) == worker.pid
    for pid in (worker.pid, forkserver, *pids):
        line = Path(f"/proc/{pid}/cmdline").read_bytes()
        assert line and b"hush" not in line and KEY.encode().hex().encode() not in line


def test_a_worker_without_keys_warns_where_others_can_reach_the_job_server(embedded_site: Bench) -> None:
    far = {"GEARMAN_SERVERS": f"{embedded_site.server.address},192.0.2.1:4730"}
    embedded_site.worker("--workers", "1", env=far).wait_for("WARNING: no secret_keys")
    keys = {"SETTINGS": json.dumps({"secret_keys": [KEY]})}
    assert "WARNING" not in embedded_site.worker("--workers", "1", env={**far, **keys}).log
    assert "WARNING" not in embedded_site.worker("--workers", "1").log


def test_a_dead_letter_that_a_stranger_wrote_moves_no_cursor(unguarded: Attacker) -> None:
    escape = b"\x1b[2J\x1b]0;owned\x07\xc2\x9b2J"
    head = b"POST /x HTTP/1.1\r\nX-Gearman-Task: " + "\x9b2J\x85".encode() + b"\r\nContent-Length: %d\r\n\r\n"
    letter = unguarded.letter_of(unguarded.push(head % len(escape) + escape))
    name = next(
        path.stem for path in (unguarded.bench.state_dir / "dead").glob("*.http") if escape in path.read_bytes()
    )
    unguarded.push(b"x", queue="\x1b[2J")
    unguarded.push(b"x", queue="tab\tin\tit")
    commands = [["list"], ["show", name], ["show", name, "--secrets"], ["curl", name]]
    for arguments in (["status"], *(["dead", *command] for command in commands)):
        text = unguarded.cli(*arguments)
        assert "\x1b" not in text and "\x9b" not in text and "\x07" not in text, arguments
    assert letter.trusted
    assert "\x1b" not in unguarded.bench.workers[-1].log


# -- redaction --------------------------------------------------------------------------------------------------------


# -- the log ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body", [b"it's\\ \x1b[2J", b"\xff\xfe\r\n", "caf\xe9 \u2028 \x9b".encode(), b"plain; rm -rf /", b"$(x)`y`"]
)
def test_what_dead_curl_quotes_is_what_the_shell_sends(body: bytes) -> None:
    word = _quote(body.decode("utf-8", "surrogateescape"))
    assert word.isprintable()
    assert subprocess.run(["bash", "-c", f"printf %s {word}"], capture_output=True).stdout == body
