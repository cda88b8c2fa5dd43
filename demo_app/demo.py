"""`make demo`: `gearwsgi dev` for this application, with a guide.

It queues one task through HTTP, shows the line that the worker wrote about it, and says what to try next.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import FrameType

FOLDER = Path(__file__).resolve().parent.parent
START = 60.0  # seconds for an answer


class Ended(Exception):
    """`gearwsgi dev` has ended: it was asked to, or said why."""


class Demo:
    """`gearwsgi dev` as a process; what it writes is shown, and looked at."""

    def __init__(self, port: str) -> None:
        command = [sys.executable, "-m", "gearwsgi", "dev", "demo_app:application", "--port", port]
        if servers := os.environ.get("GEARMAN_SERVERS"):
            command += ["--servers", servers]
        self.process = subprocess.Popen(
            command,
            cwd=FOLDER,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            # Ctrl-C is for this process alone, which passes it on once.
            start_new_session=True,
        )
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self.pass_on)

    def pass_on(self, number: int, stack: FrameType | None) -> None:
        self.process.send_signal(number)

    def wait_for(self, wanted: Callable[[str], bool]) -> str:
        """Show what is written until a line is the wanted one, and return that line."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            print(line, end="", flush=True)
            if wanted(line):
                return line.rstrip("\n")
        raise Ended

    def end(self) -> int:
        """Have it end, however far it is; its exit code."""
        self.process.terminate()
        assert self.process.stdout is not None
        for _ in self.process.stdout:  # it must not wait for us to read
            pass
        return self.process.wait()


def free_port() -> str:
    """The demo's usual port, or any free one where something else has it."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", 8080))
        except OSError:
            return "0"
    return "8080"


def show(demo: Demo) -> None:
    line = demo.wait_for(lambda line: "dev | http://" in line)
    url = re.findall(r"http://\S+", line)[0]
    dashboard = demo.wait_for(lambda line: "dev | dashboard http://" in line).partition("dashboard ")[2]
    line = demo.wait_for(lambda line: "dev | in another terminal: " in line)
    gearwsgi = line.partition("in another terminal: ")[2].removesuffix(" status")
    demo.wait_for(lambda line: "worker ready:" in line)

    print(f"\nQueuing a task: GET {url}index/index?name=Ada", flush=True)
    # It begins with http://, as the line above saw.
    with urllib.request.urlopen(f"{url}index/index?name=Ada", timeout=START) as response:  # nosec B310
        text = response.read().decode()
    task = json.loads(text)["task"]
    print(f"answered at once: {text}\nand here is what the worker does with it:", flush=True)
    demo.wait_for(lambda line: task in line and " result " in line)

    print(
        f"""
That line is the whole idea: a handler queued a request, and the worker ran it through the same application.

Try next, in another terminal:
  open       {url}   and click
  look       {dashboard}   the dashboard: what runs, what failed and why
  queue      {gearwsgi} send default.index '{{"name": "you"}}'
  watch      {gearwsgi} status --watch
  read       {FOLDER / "demo_app/__init__.py"}   all of the application; change it, and it is reloaded

Ctrl-C stops everything.
""",
        flush=True,
    )
    demo.wait_for(lambda _: False)


def main() -> int:
    demo = Demo(os.environ.get("PORT") or free_port())
    try:
        show(demo)
    except Ended:
        return demo.process.wait()
    except BrokenPipeError:
        # A reader that has gone away (make demo | head) is no reason to leave processes behind.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    finally:
        demo.end()
    return 0


if __name__ == "__main__":
    sys.exit(main())
