"""run.sh and stop.sh, by their real commands in a copy of the tree."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.demo.conftest import Tree, free_port, wait_until

STAMP = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} [+-]\d{4} ")
READY = " worker ready: "


@pytest.fixture
def stranger() -> Iterator["subprocess.Popen[bytes]"]:
    """A process that has nothing to do with us, and whose id a stale pid file names."""
    with subprocess.Popen(["sleep", "1000"]) as process:
        yield process
        process.kill()


def started(pid: int) -> str:
    """When a process started, as the pid file keeps it."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]


def test_run_sh_starts_a_worker_that_replays_and_stop_sh_leaves_nothing_behind(tree: Tree) -> None:
    pid = tree.start()
    assert pid in tree.processes()
    assert any(READY in line and "1 worker" in line for line in tree.lines())
    handle = tree.queue("default.index", name="Ada Lovelace")
    tree.has_line(handle, "Ada Lovelace")
    tree.stop()
    assert tree.is_quiet()
    assert not tree.pid_file.exists()


def test_what_run_sh_shows_works_as_it_is_in_another_terminal(tree: Tree) -> None:
    done = tree.run("sh", "run.sh", "2")
    mark = tree.environ.pop("GEARMAN_SERVERS", None)
    handle = tree.run_printed(tree.printed(done.stdout, "queue")).strip()
    tree.has_line(handle, '"name": "you"')
    assert "supervisors 1\n" in tree.run_printed(tree.printed(done.stdout, "watch").removesuffix(" --watch"))
    output = tree.run_printed(tree.printed(done.stdout, "its output").replace("tail -f", "tail -n 100"))
    assert READY in output and handle in output
    assert "has ended" in tree.run_printed(tree.printed(done.stdout, "end it"))
    assert tree.is_quiet()
    assert mark is None or mark in done.stdout


def test_run_sh_starts_as_many_workers_as_it_is_told(tree: Tree) -> None:
    tree.start(3)
    assert any(READY in line and "3 workers" in line for line in tree.lines())


def test_run_sh_replaces_the_worker_that_runs(tree: Tree) -> None:
    first = tree.start(1)
    second = tree.start(2)
    running = tree.processes()
    assert first not in running
    assert second in running
    assert sum("gearman-server.py --workers" in command for command in running.values()) >= 1
    assert sum(READY in line for line in tree.lines()) == 2, "the output is appended"
    tree.has_line(tree.queue("default.index", name="Ada"), "Ada")
    tree.stop()
    assert tree.is_quiet()


def test_run_sh_twice_at_the_same_time_leaves_one_worker(tree: Tree) -> None:
    runs = [tree.popen("sh", "run.sh", "1") for _ in range(2)]
    for run in runs:
        output, _ = run.communicate(timeout=110)
        assert run.returncode == 0, output
    pid = int(tree.pid_file.read_text().split()[0])
    tree.stop()
    assert tree.is_quiet(), f"a second worker beside {pid} was not in the pid file"


def test_run_sh_works_from_another_folder_and_with_no_open_files(tree: Tree, tmp_path: Path) -> None:
    done = tree.run("sh", "-c", 'sh "$0" 1 <&- >&- 2>&-', str(tree.folder / "run.sh"), cwd=tmp_path)
    assert done.returncode == 0
    assert any(READY in line for line in tree.lines())
    assert not (tmp_path / "nohup.out").exists()
    done = tree.run("sh", str(tree.folder / "stop.sh"), cwd=tmp_path)
    assert done.returncode == 0
    assert tree.is_quiet()


@pytest.mark.parametrize("count", ["0", "-1", "two", "1.5", "", "01", "1000", "2 3", "$(id)"])
def test_run_sh_refuses_what_is_no_number_of_workers(tree: Tree, count: str) -> None:
    done = tree.run("sh", "run.sh", count)
    assert done.returncode == 2
    assert f"'{count}' is not a number of workers" in done.stderr
    assert not tree.nohup_out.exists()


def test_run_sh_refuses_more_than_one_argument(tree: Tree) -> None:
    done = tree.run("sh", "run.sh", "1", "2")
    assert done.returncode == 2
    assert "usage" in done.stderr


def test_run_sh_fails_with_the_reason_when_the_application_can_not_be_imported(tree: Tree) -> None:
    (tree.folder / "demo_app" / "__init__.py").write_text("raise RuntimeError('the reason of it')\n")
    done = tree.run("sh", "run.sh", "2")
    assert done.returncode == 1
    assert "the reason of it" in done.stderr
    assert "nohup.out" in done.stderr
    assert not tree.pid_file.exists()
    assert tree.is_quiet()


def test_run_sh_fails_with_the_reason_when_something_else_holds_the_port(make_tree: Callable[..., Tree]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        tree = make_tree(servers=f"embedded://127.0.0.1:{taken.getsockname()[1]}")
        done = tree.run("sh", "run.sh")
    assert done.returncode == 1
    assert "is taken by something" in done.stderr
    assert tree.is_quiet()


def test_run_sh_starts_while_no_job_server_answers(make_tree: Callable[..., Tree]) -> None:
    tree = make_tree(servers=f"127.0.0.1:{free_port()}")
    tree.start()
    tree.stop()
    assert tree.is_quiet()


def test_stop_sh_has_nothing_to_do_where_nothing_runs(tree: Tree) -> None:
    assert "no worker" in tree.stop()
    assert "no worker" in tree.stop()


def test_stop_sh_can_be_called_twice(tree: Tree) -> None:
    tree.start()
    assert "has ended" in tree.stop()
    assert "no worker" in tree.stop()
    assert tree.is_quiet()


def test_stop_sh_lets_the_job_in_hand_finish(tree: Tree) -> None:
    tree.start()
    handle = tree.queue("slow.count", seconds=3)
    tree.has_line(handle)
    tree.stop()
    assert any(handle in line and '"counted": 3' in line for line in tree.lines())
    assert tree.is_quiet()


def test_a_stale_pid_file_never_ends_a_stranger(tree: Tree, stranger: "subprocess.Popen[bytes]") -> None:
    for text in (
        f"{stranger.pid}\n",  # the id alone
        f"{stranger.pid}\n1\n",  # the id is used again since
        f"{stranger.pid}\n{started(stranger.pid)}\n",  # the time fits, but it is another command
        f"-{stranger.pid}\n{started(stranger.pid)}\n",  # would be a process group
        "0\n1\n",
        "no number\n1\n",
        "",
    ):
        tree.pid_file.write_text(text)
        tree.stop()
        assert not tree.pid_file.exists()
        assert stranger.poll() is None
    tree.pid_file.write_text(f"{stranger.pid}\n{started(stranger.pid)}\n")
    tree.start()
    assert stranger.poll() is None


def test_the_pid_file_of_another_folder_ends_nothing(make_tree: Callable[..., Tree]) -> None:
    ours, copy = make_tree("ours"), make_tree("copy")
    pid = ours.start()
    copy.pid_file.write_text(ours.pid_file.read_text())
    assert "no worker" in copy.stop()
    assert pid in ours.processes()


def test_run_sh_starts_after_the_worker_was_killed(tree: Tree) -> None:
    os.kill(tree.start(), signal.SIGKILL)
    tree.start()
    tree.has_line(tree.queue("default.index", name="Ada"), "Ada")
    tree.stop()
    assert tree.is_quiet()


def test_a_worker_that_does_not_react_is_ended_all_the_same(tree: Tree) -> None:
    pid = tree.start()
    os.kill(pid, signal.SIGSTOP)
    # Its start is what matters here, and not the minute in which stop.sh is patient.
    script = tree.folder / "stop.sh"
    script.write_text(script.read_text().replace("TERM 35", "TERM 1").replace("TERM 15", "TERM 1"))
    assert "killing it" in tree.stop()
    assert tree.is_quiet()


def test_no_line_of_nohup_out_is_ever_glued_to_another(tree: Tree) -> None:
    tree.nohup_out.write_text("half a line of one that was killed")
    tree.start(3)
    code = (
        "from demo_app import application\n"
        "for n in range(300): application.gearman.task('default.index', {'name': f'name-{n}.'})"
    )
    assert tree.run("python3", "-c", code).returncode == 0
    for n in (0, 150, 299):
        tree.has_line(f"name-{n}.", "world")
    wait_until(lambda: sum('"hello": "world"' in line for line in tree.lines()) >= 300, "300 results")
    tree.stop()
    first, *rest = tree.nohup_out.read_text().splitlines()
    assert first == "half a line of one that was killed"
    assert [line for line in rest if not STAMP.match(line)] == []
    assert [line for line in rest if len(STAMP.findall(line)) != 1] == []
    assert [line for line in rest if line.count('"hello"') > 1] == []


@pytest.mark.xdist_group("port 4730")
def test_without_a_setting_the_worker_brings_its_own_job_server(make_tree: Callable[..., Tree]) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", 4730))
        except OSError:
            pytest.skip("something else has the port 4730")
    tree = make_tree(servers=None)
    tree.start(2)
    assert any(READY in line and "127.0.0.1:4730" in line for line in tree.lines())
    tree.has_line(tree.queue("default.index", name="Ada"), "Ada")
    tree.stop()
    assert tree.is_quiet()


@pytest.mark.timeout(400)
def test_run_sh_sets_up_its_own_environment_where_gearwsgi_is_not_installed(tree: Tree) -> None:
    base = Path(sys.base_prefix) / "bin"
    tree.path_begins_with(base)
    if tree.run(str(base / "python3"), "-c", "import gearman, webob").returncode == 0:
        pytest.skip(f"{base} has the dependencies")
    done = tree.run("sh", "run.sh", "2", timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert ".venv/bin/python" in tree.processes()[int(tree.pid_file.read_text().split()[0])]
    assert "setting up" in done.stdout
    done = tree.run("sh", "run.sh", timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "setting up" not in done.stdout, "it is done once"
    tree.stop()
    assert tree.is_quiet()
