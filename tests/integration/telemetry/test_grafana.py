"""The dashboard and the alert rules, tried with a true Prometheus that scrapes a true worker."""

import json
import os
import re
import shutil
import signal
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gearwsgi.submit.agenda import Agenda
from tests.integration.telemetry.scrape import Scraper
from tests.support import ROOT, Bench, free_port, until

FOLDER = ROOT / "docs" / "grafana"
RULES = FOLDER / "alerts.yml"
SCHEDULE = {"yearly": {"service": "/good", "cron": "@yearly"}}
METRIC = re.compile(r"\bgearwsgi_\w+")


class Prometheus:
    """A Prometheus that scrapes one target each second, and asks all the alert rules."""

    def __init__(self, folder: Path, target: int) -> None:
        self._port = free_port()
        config = folder / "prometheus.yml"
        config.write_text(
            "global: {scrape_interval: 1s, evaluation_interval: 1s}\n"
            f"rule_files: [{json.dumps(str(RULES))}]\n"
            "scrape_configs:\n- job_name: gearwsgi\n"
            f"  static_configs: [{{targets: ['127.0.0.1:{target}']}}]\n"
        )
        with (folder / "prometheus.log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    "prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder / 'prometheus'}",
                    f"--web.listen-address=127.0.0.1:{self._port}",
                ],
                stdout=log, stderr=log,
            )  # fmt: skip
        until(self._answers)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/-/ready", timeout=30):
                return True
        except OSError:
            return False  # not yet

    def get(self, what: str, **query: str) -> Any:
        """What its API answers."""
        address = f"http://127.0.0.1:{self._port}/api/v1/{what}?{urllib.parse.urlencode(query)}"
        try:
            with urllib.request.urlopen(address, timeout=30) as response:
                return json.load(response)["data"]
        except urllib.error.HTTPError as error:
            with error:
                raise AssertionError(f"{query}: {error.read().decode()}") from None

    def ask(self, expression: str) -> list[Any]:
        """The result of an expression, now."""
        found: list[Any] = self.get("query", query=expression)["result"]
        return found

    def rules(self) -> dict[str, str]:
        """The alert rules that it has read: name and expression."""
        return {rule["name"]: rule["query"] for group in self.get("rules")["groups"] for rule in group["rules"]}

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(60)


@pytest.fixture
def scraper(embedded_site: Bench) -> Iterator[Scraper]:
    if shutil.which("prometheus") is None:
        if os.environ.get("CI"):
            pytest.fail("prometheus is not installed; CI must test with it")
        pytest.skip("prometheus is not installed (Debian's package of that name)")
    settings = {"backoff_min": 0, "backoff_max": 0.1, "schedule": SCHEDULE}
    yield Scraper(embedded_site, "--workers", "2", SETTINGS=json.dumps(settings))


def expressions() -> dict[str, str]:
    """Those of the dashboard's panels, with what Grafana puts in for its variables."""
    dashboard = json.loads((FOLDER / "dashboard.json").read_text())
    return {
        panel["title"]: target["expr"].replace("$job", ".*").replace("$__rate_interval", "1m").replace("$__range", "1m")
        for panel in dashboard["panels"]
        for target in panel["targets"]
    }


def test_every_expression_of_the_dashboard_and_of_the_alerts_gives_true_numbers(
    embedded_site: Bench, scraper: Scraper
) -> None:
    app = embedded_site.app(schedule=SCHEDULE)
    task = app.gearman.task
    prometheus = Prometheus(embedded_site.folder, scraper.port)
    try:
        Agenda(app.client).run("yearly")
        until(lambda: prometheus.ask("sum(gearwsgi_jobs_total) == 1"))
        task("/good", queue="nobody")
        for _ in range(10):
            task("/boom", max_attempts=2)
            task("/kill", max_attempts=1)
        until(lambda: prometheus.ask("sum(gearwsgi_jobs_total) == 31"))
        until(lambda: prometheus.ask('sum(increase(gearwsgi_jobs_total{outcome="dead"}[1m])) > 0'))
        for title, expression in expressions().items():
            assert until(lambda e=expression: prometheus.ask(e), f"{title}: {expression}")
        told = {name: value for name, _, value in scraper.samples()}
        named = {
            name for text in (*expressions().values(), *prometheus.rules().values()) for name in METRIC.findall(text)
        }
        assert named <= told.keys()
        assert told.keys() - named - {name for name in told if name.endswith("_count")} == {
            "gearwsgi_job_wait_seconds_sum"
        }

        rules = prometheus.rules()
        fires(prometheus, rules.pop("GearwsgiQueueUnserved"))
        fires(prometheus, rules.pop("GearwsgiQueueOld").replace("> 300", "> 1"))
        fires(prometheus, rules.pop("GearwsgiDeadLetters"))
        fires(prometheus, rules.pop("GearwsgiFailureRate"))
        fires(prometheus, rules.pop("GearwsgiScheduleStale").replace("> 26 * 3600", "> 1"))
        fires(prometheus, rules.pop("GearwsgiWorkersCrash"))
        assert not prometheus.ask(rules["GearwsgiOutbox"]) and not prometheus.ask(rules["GearwsgiServerDown"])
        assert not prometheus.ask(rules["GearwsgiSupervisorGone"])
        embedded_site.server.kill()
        task("/good")
        fires(prometheus, rules.pop("GearwsgiOutbox"))
        fires(prometheus, rules.pop("GearwsgiServerDown"))
        fires(prometheus, rules.pop("GearwsgiRecordsDropped").replace("> 0", ">= 0"))
        scraper.worker.signal(signal.SIGKILL)
        fires(prometheus, rules.pop("GearwsgiSupervisorGone"))
        assert not rules
    finally:
        prometheus.close()


def fires(prometheus: Prometheus, expression: str) -> None:
    """Wait until an alert's expression is true of something."""
    assert until(lambda: prometheus.ask(expression), expression)


def test_promtool_finds_nothing_wrong_with_the_alert_rules() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian's package prometheus)")
    done = subprocess.run([promtool, "check", "rules", str(RULES)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
