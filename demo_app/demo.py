"""`make demo`: the worker with its job server, and the web application, in one terminal until Ctrl-C.

It queues one task through HTTP, shows the line that the worker wrote about it, and says what to try next.
"""

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent
START = 60.0  # seconds for a process to start, or for the first task to run
DRAIN = 45.0  # seconds for a process to end; the worker itself gives its jobs 30


class Stopped(Exception):
    """Ctrl-C, another signal that asks for the end, or a process that ended by itself."""

    def __init__(self, reason: str, code: int) -> None:
        super().__init__(reason)
        self.code = code


class Demo:
    """The processes, and everything that happens to them in one queue: lines, ends and signals."""

    def __init__(self) -> None:
        self.processes: dict[str, subprocess.Popen[str]] = {}
        # (process, line), (process, None) when its output ends, ("", signal's name)
        self.events: queue.SimpleQueue[tuple[str, str | None]] = queue.SimpleQueue()

    def catch_signals(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda got, _: self.events.put(("", signal.Signals(got).name)))

    def start(self, name: str, *command: str, **environment: str) -> None:
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=FOLDER,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            # Ctrl-C is for this process alone; it then asks the others to end, once and in order.
            start_new_session=True,
        )
        self.processes[name] = process
        threading.Thread(target=self.read, args=(name, process), daemon=True).start()

    def read(self, name: str, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self.events.put((name, line.rstrip("\n")))
        self.events.put((name, None))

    def wait_for(self, wanted: Callable[[str, str], bool], what: str, seconds: float | None = START) -> str:
        """Show what the processes write until a line is the wanted one, and return that line."""
        end = None if seconds is None else time.monotonic() + seconds
        while True:
            try:
                left = None if end is None else max(0.0, end - time.monotonic())
                name, line = self.events.get(timeout=left)
            except queue.Empty:
                raise Stopped(f"{what} did not come within {seconds:.0f} seconds", 1) from None
            if not name:
                raise Stopped(f"{line}: stopping", 0)
            if line is None:
                code = self.processes.pop(name).wait()
                raise Stopped(f"the {name} process has ended by itself (exit code {code})", 1)
            print(f"{name:>6} | {line}", flush=True)
            if wanted(name, line):
                return line

    def stop(self) -> None:
        """Ask all to end and wait for it; a second signal, or time running out, is at once."""
        running = dict(self.processes)
        for process in running.values():
            process.terminate()
        end = time.monotonic() + DRAIN
        while running:
            try:
                name, line = self.events.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                break
            if not name:
                for process in running.values():
                    process.terminate()
            elif line is None:
                running.pop(name).wait()
            else:
                # A reader that has gone away (make demo | head) is no reason to leave processes behind.
                self.say(f"{name:>6} | {line}")
        for process in running.values():
            process.kill()
            process.wait()

    def say(self, text: str) -> None:
        try:
            print(text, flush=True)
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


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
    demo.start("worker", "gearman-server.py", "--workers", "2")
    demo.wait_for(lambda _, line: "worker ready:" in line, "the worker's ready line")
    demo.start("web", "-m", "demo_app", PORT=os.environ.get("PORT") or free_port())
    url = demo.wait_for(lambda name, line: name == "web" and line.startswith("http://"), "the web address")

    print(f"\nQueuing a task: GET {url}index/index?name=Ada", flush=True)
    with urllib.request.urlopen(f"{url}index/index?name=Ada", timeout=START) as response:
        text = response.read().decode()
    handle = json.loads(text)["handle"]
    print(f"answered at once: {text}\nand here is what the worker does with it:", flush=True)
    demo.wait_for(lambda _, line: handle in line and "Ada" in line, "the line that the replay writes")

    gearwsgi = os.path.relpath(Path(sys.executable).with_name("gearwsgi"))
    if servers := os.environ.get("GEARMAN_SERVERS"):
        gearwsgi = f"GEARMAN_SERVERS={servers} {gearwsgi}"
    print(
        f"""
That line is the whole idea: a handler queued a request, and the worker ran it through the same application.

Try next:
  open       {url}   and click
  queue      {gearwsgi} send default.index '{{"name": "you"}}'
  watch      {gearwsgi} status --watch
  read       demo_app/__init__.py   all of the application

Ctrl-C stops everything.
""",
        flush=True,
    )
    demo.wait_for(lambda *_: False, "the end", None)


def main() -> int:
    demo = Demo()
    demo.catch_signals()
    try:
        show(demo)
    except Stopped as stopped:
        demo.say(f"\n{stopped}")
        return stopped.code
    except BrokenPipeError:
        demo.say("")
        return 1
    finally:
        demo.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
