"""`python -m benchmarks.defer`: what a deferred request costs its client whose true response is awaited.

One client, one connection to waitress, one worker, with gearmand and with the embedded job server. The same handler is
asked directly and deferred, in turn; shown are the medians, and the median of the differences of each pair, in ms.
"""

import argparse
import http.client
import os
import shutil
import statistics
import sys
import tempfile
import time

from benchmarks.harness import Stage, Trouble, free_port, listens, wait_for

APP = "benchmarks.deferred_app:application"


def embedded(stage: Stage) -> None:
    """A new job server of this package, in gearmand's place."""
    port = free_port()
    state = tempfile.mkdtemp(dir=stage.folder, prefix="state-")
    stage.environ |= {"BENCH_GEARMAN": f"127.0.0.1:{port}", "BENCH_STATE_DIR": state}
    command = [sys.executable, "-m", "gearwsgi", "server", "--listen", f"127.0.0.1:{port}", "--state-dir", state]
    stage.start("server", command)
    wait_for(lambda: listens(port), 10, "the embedded job server")


def ask(client: http.client.HTTPConnection, path: str) -> float:
    """Milliseconds of one request."""
    began = time.perf_counter()
    client.request("POST", path, b"x" * 100, {"Content-Type": "text/plain"})
    answer = client.getresponse()
    body = answer.read()
    if (answer.status, body) != (200, b"ok"):
        raise Trouble(f"{path} answered {answer.status}: {body[:200]!r}")
    return (time.perf_counter() - began) * 1000


def measure(stage: Stage, count: int) -> tuple[float, float, float, float]:
    """Medians: direct, deferred, their difference; and the 95th percentile of that."""
    port = free_port()
    worker = stage.start("worker", [sys.executable, "-m", "gearwsgi", "worker", APP, "--workers", "1"])
    web = stage.start("web", [sys.executable, "-m", "waitress", f"--listen=127.0.0.1:{port}", APP])
    try:
        wait_for(lambda: listens(port), 30, "waitress")
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        for _ in range(20):
            ask(client, "/direct"), ask(client, "/deferred")
        pairs = [(ask(client, "/direct"), ask(client, "/deferred")) for _ in range(count)]
        more = sorted(deferred - direct for direct, deferred in pairs)
        direct, deferred = (statistics.median(each) for each in zip(*pairs, strict=True))
        return direct, deferred, statistics.median(more), more[int(count * 0.95)]
    finally:
        stage.stop(web, worker)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.defer", description=__doc__)
    parser.add_argument("--requests", type=int, default=500, help="of each kind")
    options = parser.parse_args()
    os.environ["PATH"] = f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin:/sbin"
    try:
        with Stage() as stage:
            for name, start in (("gearmand", Stage.gearmand), ("embedded", embedded)):
                if name == "gearmand" and shutil.which(name) is None:
                    print("gearmand is not installed: left out", file=sys.stderr)
                    continue
                start(stage)
                direct, deferred, more, rarely = measure(stage, options.requests)
                print(
                    f"{name}: direct {direct:.2f} ms, deferred {deferred:.2f} ms; more: {more:.2f} ms at the median, "
                    f"{rarely:.2f} ms at the 95th percentile",
                    flush=True,
                )
    except Trouble as trouble:
        print(trouble, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
