"""`gearwsgi dashboard`: it prints an address that opens it, and keeps the token out of what it writes later."""

import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from http.cookiejar import CookieJar
from pathlib import Path

from tests.dashboards import fill, middleware
from tests.support import PATIENCE, free_port


def test_the_command_prints_an_address_that_opens_it_and_nothing_else_does(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    shop = middleware(tmp_path / "state", address)
    ids = fill(shop.settings, tasks=5, dead=2)
    shop.client.close()
    env = {"PATH": "", "GEARMAN_SERVERS": address, "GEARWSGI_STATE_DIR": str(tmp_path / "state"),
           "GEARWSGI_RECORDS": "sqlite"}  # fmt: skip
    command = [sys.executable, "-m", "gearwsgi", "dashboard", "--listen", "127.0.0.1:0"]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        printed = process.stdout.readline().strip()
        found = re.fullmatch(r"(http://127\.0\.0\.1:\d+/)\?token=([\w-]{43})", printed)
        assert found, printed
        url, token = found.groups()
        try:
            urllib.request.urlopen(url, timeout=PATIENCE)
            raise AssertionError("it is open")
        except urllib.error.HTTPError as error:
            assert error.code == 403 and "mail.welcome" not in error.read().decode()
        browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
        with browser.open(printed, timeout=PATIENCE) as answer:
            assert answer.url == url and token not in answer.read().decode()
        with browser.open(url + "dead", timeout=PATIENCE) as answer:
            csrf = re.search(r'name="csrf" value="(\w+)"', answer.read().decode())
        assert csrf
        form = f"one={ids['dead']}&csrf={csrf[1]}".encode()
        with browser.open(url + "dead/discard", form, timeout=PATIENCE) as answer:
            assert "1 discarded" in answer.read().decode()
    finally:
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE)
    assert token not in out + err
    assert f"dashboard: token holder discarded dead letter {ids['dead']}" in err
    assert "Traceback" not in err, err
