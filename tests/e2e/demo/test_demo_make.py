"""`make demo`, and the script behind it."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import browser
from tests.e2e.demo.conftest import Tree, free_port


@contextmanager
def demo(tree: Tree, *command: str, seconds: float = 100) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """Start the demo and wait until it has shown everything; the process and what it has written so far."""
    tree.environ["PORT"] = str(free_port())
    with tree.popen(*command) as process:
        limit = threading.Timer(seconds, process.kill)  # ends the reading below
        limit.start()
        try:
            assert process.stdout is not None
            lines = []
            for line in process.stdout:
                lines.append(line)
                if "Ctrl-C stops everything" in line:
                    break
            output = "".join(lines)
            assert "Ctrl-C stops everything" in output, output
            yield process, output
        finally:
            limit.cancel()
            process.kill()


def check(output: str) -> None:
    """A task was queued through HTTP, and the line of its replay was shown."""
    task = re.search(r'"task": "([^"]+)"', output)
    assert task, output
    shown = [line for line in output.splitlines() if line.startswith("worker | ")]
    assert any(task[1] in line and "Ada" in line for line in shown)
    assert "worker ready: 2 workers" in output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_demo_shows_a_replay_and_a_signal_ends_all_of_it(tree: Tree, number: signal.Signals) -> None:
    with demo(tree, "python3", "-m", "demo_app.demo") as (process, output):
        check(output)
        handle = tree.run_printed(tree.printed(output, "queue"))
        assert handle.startswith("H:"), handle
        state = tree.run_printed(tree.printed(output, "watch").removesuffix(" --watch"))
        assert "supervisors 1\n" in state, "the state directory's supervisor"
        process.send_signal(number)
        rest, _ = process.communicate(timeout=60)
        assert process.returncode == 0, rest
        assert "Traceback" not in rest
    assert tree.is_quiet()


def test_its_front_page_shows_what_one_queues_and_leads_to_the_dashboard(tree: Tree) -> None:
    browser.require()
    from playwright.sync_api import expect, sync_playwright

    with demo(tree, "python3", "-m", "demo_app.demo") as (process, output):
        printed = tree.printed(output, "look").split()[0]
        with sync_playwright() as playwright, browser.chromium(playwright) as chromium:
            page = chromium.new_page()
            page.goto(tree.printed(output, "open").split()[0])
            expect(page.locator("#queued")).to_be_hidden()
            page.get_by_role("link", name="index/slow").click()
            page.get_by_role("link", name="index/flaky").click()
            page.get_by_role("link", name="index/index").click()
            states = page.locator("#tasks .state")
            expect(states.last).to_contain_text("running", timeout=60_000)
            expect(states.last).to_contain_text("of 10", timeout=60_000)
            expect(page.locator("#tasks .done")).to_have_count(3, timeout=60_000)
            page.get_by_role("link", name="dashboard").click()
            page.wait_for_url(printed)
            page.get_by_role("link", name="Tasks").click()
            expect(page.locator("main")).to_contain_text("flaky.index")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert tree.is_quiet()


def test_the_demo_says_why_it_ends_when_its_worker_can_not_start(tree: Tree) -> None:
    (tree.folder / "demo_app" / "__init__.py").write_text("raise RuntimeError('the reason of it')\n")
    done = tree.run("python3", "demo_app/demo.py")
    assert done.returncode == 4
    assert "the reason of it" in done.stdout
    assert "has ended by itself" in done.stdout
    assert tree.is_quiet()


def test_the_demo_ends_when_nobody_reads_what_it_writes(tree: Tree) -> None:
    tree.environ["PORT"] = str(free_port())
    done = tree.run("sh", "-c", "python3 -m demo_app.demo | head -n 1")
    assert done.returncode == 0
    assert tree.is_quiet()


@pytest.mark.timeout(400)
@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
def test_make_demo_needs_nothing_but_python(tree: Tree) -> None:
    tree.path_begins_with(Path(sys.base_prefix) / "bin")
    with demo(tree, "make", "demo", seconds=300) as (process, output):
        check(output)
        assert (tree.folder / ".venv").is_dir()
        os.killpg(process.pid, signal.SIGINT)  # as the terminal does
        process.communicate(timeout=60)
    assert tree.is_quiet()
