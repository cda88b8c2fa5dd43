"""The measures: each one a function of a bench and a round, which notes what it saw."""

import contextlib
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from benchmarks.harness import (
    Probe,
    Running,
    Stage,
    Stamp,
    Stamps,
    Trouble,
    cpu_seconds,
    deadline,
    listens,
    noise,
    pss_megabytes,
    wait_for,
)
from benchmarks.harness import free_port as a_free_port
from benchmarks.players import ALL, BY_KEY, Player, missing


@dataclass(frozen=True)
class Sample:
    """One number of one round: `value` in the measure's unit, CPU in µs for one operation."""

    value: float
    cpu: float | None = None
    server_cpu: float | None = None


@dataclass
class Results:
    samples: dict[tuple[str, str], dict[int, Sample]] = field(default_factory=lambda: defaultdict(dict))
    noise: list[float] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)

    def note(self, measure: str, key: str, turn: int, sample: Sample) -> None:
        self.samples[measure, key][turn] = sample

    def of(self, measure: str, key: str) -> dict[int, Sample]:
        return self.samples.get((measure, key), {})


class Bench:
    """Servers, submitting processes and slots, made when they are first needed and kept for all rounds."""

    def __init__(self, stage: Stage, scale: float) -> None:
        self.stage, self.scale = stage, scale
        self.absent = missing()
        self.results = Results()
        self._probes: dict[str, Probe] = {}
        self._servers: dict[str, Running] = {}
        self._next = 0
        self.http_port = a_free_port()
        stage.environ["BENCH_HTTP"] = str(self.http_port)
        self.stamps = Stamps(stage.environ["BENCH_STAMPS"])
        self.reset()

    def players(self, turn: int, *keys: str) -> list[Player]:
        """Those that are there, another one first each round: whatever the first has of it, each has in turn."""
        found = [player for player in ALL if player.key in keys and player.key not in self.absent]
        first = turn % len(found) if found else 0
        return found[first:] + found[:first]

    def reset(self) -> None:
        """Empty queues: a new gearmand and a flushed Redis."""
        keep = [self._servers["redis"]] if "redis" in self._servers else []
        self.stage.stop(*(each for each in self.stage.running if each not in keep))
        self._probes.clear()
        self._servers["gearmand"] = self.stage.gearmand()
        if keep:
            self.stage.flush_redis()
        elif "celery" not in self.absent:
            self._servers["redis"] = self.stage.redis()

    def take(self, count: int) -> int:
        """The first of `count` job numbers that nobody has used yet."""
        self._next += count
        return self._next - count

    def probe(self, player: Player) -> Probe:
        if player.probe not in self._probes:
            self._probes[player.probe] = Probe(self.stage, player.probe)
        return self._probes[player.probe]

    def worker(self, player: Player, workers: int = 1) -> Running:
        # Put in here, since the ports are chosen later than the commands are written.
        values = {"REDIS": self.stage.environ.get("BENCH_REDIS", ""), "HTTP": str(self.http_port)}
        command = [part.replace("HTTP", values["HTTP"]) for part in player.worker(workers)]
        command = [values["REDIS"] if part == "REDIS" else part for part in command]
        running = self.stage.start(f"{player.key} worker", command)
        if player.pushes:
            wait_for(lambda: listens(self.http_port), 20, f"the server of {player.label}")
        return running

    @contextlib.contextmanager
    def attempt(self, measure: str, player: Player, turn: int) -> Iterator[None]:
        """A peer that fails is reported and left out of this round; the others go on."""
        try:
            yield
        except Trouble as trouble:
            self.trouble(f"{measure}, round {turn + 1}, {player.label}", trouble)

    def trouble(self, where: str, trouble: Trouble) -> None:
        """All of it on the terminal, its last line (the exception) in the table."""
        print(f"\n{where}: {trouble}", file=sys.stderr)
        self.results.troubles.append(f"{where}: {str(trouble).splitlines()[-1]}")

    def server(self, player: Player) -> Running | None:
        return self._servers.get(player.server)

    def scaled(self, count: int) -> int:
        return max(10, round(count * self.scale))


# --- submitting ---


def submit(bench: Bench, turn: int) -> None:
    """task() one by one, one thread; and the peers' equivalents."""
    for player in bench.players(turn, "gearwsgi", "bare", "php", "celery", "rq", "huey", "dramatiq"):
        with bench.attempt("submit", player, turn):
            bench.results.note("submit", player.key, turn, submit_once(bench, player, turn))
    if "celery" not in bench.absent:
        bench.stage.flush_redis()


def submit_once(bench: Bench, player: Player, turn: int) -> Sample:
    probe, n = bench.probe(player), bench.scaled(player.submits)
    if turn == 0:
        probe.ask("submit", start=0, n=max(50, n // 4))
    server = bench.server(player)
    before = cpu_seconds(server.pid) if server else 0.0
    answer = probe.ask("submit", start=0, n=n)
    used = (cpu_seconds(server.pid) if server else 0.0) - before
    return Sample(n / answer["wall"], answer["cpu"] / n * 1e6, used / n * 1e6)


def batch(bench: Bench, turn: int) -> None:
    """100 tasks in one request: one by one, and with after_response."""
    probe, n = bench.probe(BY_KEY["gearwsgi"]), bench.scaled(2000) // 100 * 100 or 100
    for name, key in (("submit", "onebyone"), ("batch", "gearwsgi")):
        if turn == 0:
            probe.ask(name, start=0, n=200)
        total = {"wall": 0.0, "cpu": 0.0}
        for _ in range(n // 100):
            answer = probe.ask(name, start=0, n=100)
            total = {part: total[part] + answer[part] for part in total}
        bench.results.note("batch", key, turn, Sample(n / total["wall"], total["cpu"] / n * 1e6))


def body(bench: Bench, turn: int) -> None:
    """A body of 5 MB."""
    n = 6
    for player in bench.players(turn, "gearwsgi", "bare"):
        with bench.attempt("body", player, turn):
            probe = bench.probe(player)
            probe.ask("body", n=1, size=5_000_000)
            answer = probe.ask("body", n=n, size=5_000_000)
            sample = Sample(answer["wall"] / n * 1000, answer["cpu"] / n * 1e6)
            bench.results.note("body", player.key, turn, sample)
    bench.reset()


def overhead(bench: Bench, turn: int) -> None:
    """What the middleware costs a request that queues nothing."""
    answer = bench.probe(BY_KEY["gearwsgi"]).ask("overhead", n=bench.scaled(40_000))
    bench.results.note("overhead", "gearwsgi", turn, Sample(answer["cost"]))


# --- working ---


def steady_rate(stamps: list[Stamp], workers: int) -> float:
    """Jobs a second from when all workers are at work (and a tenth is done) until the first one runs dry."""
    ended = sorted(stamp.ended for stamp in stamps)
    began = ended[len(ended) // 10]
    firsts: dict[int, int] = {}
    for stamp in stamps:
        firsts[stamp.process] = min(stamp.began, firsts.get(stamp.process, stamp.began))
    if workers > 1 and len(firsts) >= workers:
        began = max(began, sorted(firsts.values())[workers - 1])
    after = [end for end in ended if end > began]
    after = after[: len(after) - workers + 1]
    if len(after) < 5:
        raise Trouble("too few jobs were left when all workers were at work")
    return len(after) / (after[-1] - began) * 1e9


def drain_once(bench: Bench, player: Player, n: int, workers: int = 1, wait: float = 0.0) -> Sample:
    """The queue is filled, then the worker starts: start-up is outside of the number."""
    start, probe = bench.take(n), bench.probe(player)
    if not player.pushes:
        probe.ask("fill", start=start, n=n, wait=wait)
    worker, server = bench.worker(player, workers), bench.server(player)
    try:
        marks = []
        leaders = [worker.pid, probe.running.pid] if player.pushes else [worker.pid]
        if player.pushes:
            probe.ask("submit", start=start, n=n // 7, wait=wait)
        for done in (n // 7, n):
            if player.pushes and done == n:
                probe.ask("submit", start=start + n // 7, n=n - n // 7, wait=wait)
            bench.stamps.wait(start, done, 60, [worker])
            seen = bench.stamps.done(start, n)
            marks.append((seen, sum(map(cpu_seconds, leaders)), cpu_seconds(server.pid) if server else 0.0))
        (first, cpu, of_server), (last, cpu2, of_server2) = marks
        count = max(1, last - first)
        rate = steady_rate(bench.stamps.all(start, n), workers)
        return Sample(rate, (cpu2 - cpu) / count * 1e6, (of_server2 - of_server) / count * 1e6)
    finally:
        bench.stage.stop(worker)


def drain(bench: Bench, turn: int) -> None:
    """A full queue, one worker."""
    for player in bench.players(turn, *BY_KEY):
        with bench.attempt("drain", player, turn):
            sample = drain_once(bench, player, bench.scaled(player.jobs))
            bench.results.note("drain", player.key, turn, sample)


def workers(bench: Bench, turn: int) -> None:
    """More workers: a handler that waits 5 ms, one and eight; the short handler, one and two."""
    player = BY_KEY["gearwsgi"]
    for count, wait, jobs in ((1, 5.0, 300), (8, 5.0, 2400), (1, 0.0, 6000), (2, 0.0, 6000)):
        sample = drain_once(bench, player, bench.scaled(jobs), count, wait)
        bench.results.note("workers", f"{count} x {'5 ms' if wait else 'short'}", turn, sample)


def latency(bench: Bench, turn: int) -> None:
    """From the call to the handler's start, all idle; p50. Sample by sample in turn, all workers up."""
    players = bench.players(turn, "gearwsgi", "bare", "php", "celery", "rq", "huey", "dramatiq", "http")
    running: list[Running] = []
    try:
        for player in list(players):
            with bench.attempt("latency", player, turn):
                running.append(bench.worker(player))
                first = bench.take(5)
                bench.probe(player).ask("submit", start=first, n=5)
                bench.stamps.wait(first, 5, 30, running[-1:])
                continue
            players.remove(player)
        seen: dict[str, list[float]] = defaultdict(list)
        for _ in range(bench.scaled(60)):
            for player in players:
                number = bench.take(1)
                time.sleep(0.01)
                answer = bench.probe(player).ask("submit", start=number, n=1)
                bench.stamps.wait(number, 1, 10, running)
                seen[player.key].append((bench.stamps[number].began - answer["began"]) / 1e6)
        for key, values in seen.items():
            bench.results.note("latency", key, turn, Sample(statistics.median(values)))
    finally:
        bench.stage.stop(*running)


def memory(bench: Bench, turn: int) -> None:
    """Megabytes (PSS of the whole tree) of four workers that have all worked; of eight for gearwsgi."""
    for player in bench.players(turn, "gearwsgi", "celery", "huey", "dramatiq"):
        for count in (4, 8) if player.key == "gearwsgi" else (4,):
            key = player.key if count == 4 else "eight"
            with bench.attempt("memory", player, turn):
                bench.results.note("memory", key, turn, Sample(memory_once(bench, player, count)))


def memory_once(bench: Bench, player: Player, count: int) -> float:
    n = count * 60
    first = bench.take(n)
    bench.probe(player).ask("fill", start=first, n=n, wait=5.0)
    worker = bench.worker(player, count)
    try:
        bench.stamps.wait(first, n, 60, [worker])
        time.sleep(0.3)
        return pss_megabytes(worker.pid)
    finally:
        bench.stage.stop(worker)


def start(bench: Bench, turn: int) -> None:
    """Seconds from the command to the start of the first job, which waits in the queue."""
    for player in bench.players(turn, "gearwsgi", "bare", "php", "celery", "rq", "huey", "dramatiq"):
        with bench.attempt("start", player, turn):
            bench.results.note("start", player.key, turn, Sample(start_once(bench, player)))


def start_once(bench: Bench, player: Player) -> float:
    number = bench.take(1)
    bench.probe(player).ask("fill", start=number, n=1)
    began = time.monotonic_ns()
    worker = bench.worker(player)
    try:
        bench.stamps.wait(number, 1, 60, [worker])
        return (bench.stamps[number].began - began) / 1e9
    finally:
        bench.stage.stop(worker)


def behind(bench: Bench, turn: int) -> None:
    """Two workers, short jobs before, beside and after one of 8 s: seconds until the slowest is done."""
    for player in bench.players(turn, "gearwsgi", "celery"):
        with bench.attempt("behind", player, turn):
            bench.results.note("behind", player.key, turn, Sample(behind_once(bench, player)))
    bench.reset()


def behind_once(bench: Bench, player: Player) -> float:
    probe, worker = bench.probe(player), bench.worker(player, 2)
    try:
        warm = bench.take(100)
        probe.ask("submit", start=warm, n=100)
        bench.stamps.wait(warm, 100, 30, [worker])
        submitted: dict[int, int] = {}

        def send(n: int, wait: float = 0.0) -> dict[int, int]:
            first = bench.take(n)
            began = int(probe.ask("submit", start=first, n=n, wait=wait)["began"])
            return dict.fromkeys(range(first, first + n), began)

        submitted |= send(20)
        send(1, 8000.0)
        submitted |= send(20)
        for _ in range(10):
            time.sleep(0.1)
            submitted |= send(2)
        slowest = 0.0
        for number, began in submitted.items():
            bench.stamps.wait(number, 1, 20, [worker])
            slowest = max(slowest, (bench.stamps[number].ended - began) / 1e9)
        return slowest
    finally:
        bench.stage.stop(worker)


def _django(bench: Bench, turn: int) -> None:
    """10,000 of Django's own Tasks, against django-tasks-db."""
    from benchmarks import django_tasks  # which needs the classes of this module

    django_tasks.measure(bench, turn)


MEASURES: dict[str, Callable[[Bench, int], None]] = {
    "submit": submit,
    "batch": batch,
    "drain": drain,
    "workers": workers,
    "latency": latency,
    "memory": memory,
    "start": start,
    "body": body,
    "behind": behind,
    "overhead": overhead,
    "django": _django,
}
AT_MOST = {"behind": 3, "memory": 3, "django": 2}  # rounds: slow, and the same each time


def run(bench: Bench, names: list[str], rounds: int) -> Results:
    """All rounds of one measure, then the next; a measure that fails is reported and the others go on."""
    for name in names:
        bench.reset()
        for turn in range(min(rounds, AT_MOST.get(name, rounds))):
            print(f"\r{name}: round {turn + 1} …        ", end="", file=sys.stderr, flush=True)
            bench.results.noise.append(noise())
            try:
                with deadline(900 if name == "django" else 240):
                    MEASURES[name](bench, turn)
            except Trouble as trouble:
                bench.trouble(f"{name}, round {turn + 1}", trouble)
                with contextlib.suppress(Trouble):
                    bench.reset()
    print("\r" + " " * 40 + "\r", end="", file=sys.stderr, flush=True)
    return bench.results
