"""The documentation: every code block is run, every command is one, and what is made from the code is up to date.

What a reader does not see says how a block is run, in an HTML comment on the line before it:

    <!-- file: app.py -->             the block is that file's content
    <!-- background: worker ready -->  the commands run on; this text in their output says that they have started
    <!-- fails -->                    the commands end with an error
    <!-- output -->                   the block is what was written before it, but for numbers, ids and times
    <!-- not run: why -->             not possible here; commands of gearwsgi in it are still checked

`<!-- page: capture -->` gives the page's Python an application and `tasks`, its captured queue; `<!-- hidden` to `-->`
is Python that is run and not shown. Python blocks of a page run one after the other in one process.
"""

import ast
import configparser
import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import click
import pytest

from gearwsgi import errors
from gearwsgi.cli import cli
from tests.support import PATIENCE, ROOT, free_port, until

PAGES = sorted((ROOT / "docs").rglob("*.md"))
NAMES = {str(path.relative_to(ROOT)): path for path in [*PAGES, ROOT / "README.md"]}
BLOCK = re.compile(
    r"(?:<!-- (?P<directive>[a-z ]+)(?:: (?P<argument>[^\n]*?))? -->\n)?"
    r"(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<text>.*?)\n(?P=indent)```|<!-- hidden\n(?P<hidden>.*?)\n-->",
    re.DOTALL,
)
CAPTURE = """
from gearwsgi import GearmanMiddleware
from gearwsgi.testing import capture

def _handler(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"done"]

application = GearmanMiddleware(_handler, servers="127.0.0.1:1", state_dir="state")
_block = capture(application)
tasks = _block.__enter__()
environ = {"gearman": application.gearman}
"""
DRIVER = """
import json, sys, traceback
sys.path.insert(0, "")
namespace = {"__name__": "page"}
for line in sys.stdin:
    name, code = json.loads(line)
    try:
        exec(compile(code, name, "exec"), namespace)
        print(json.dumps(["", None]), flush=True, file=sys.__stderr__)
    except BaseException:
        print(json.dumps([traceback.format_exc(), None]), flush=True, file=sys.__stderr__)
"""


@dataclass
class Block:
    """One fenced block, or hidden Python."""

    language: str
    text: str
    line: int
    directive: str = ""
    argument: str = ""


def read_blocks(path: Path) -> Iterator[Block]:
    """The blocks of a page, in order."""
    page = path.read_text()
    for found in BLOCK.finditer(page):
        line = page.count("\n", 0, found.start()) + 1
        if found["hidden"] is not None:
            yield Block("python", found["hidden"], line)
        else:
            indent = len(found["indent"])
            text = "\n".join(line[indent:] for line in found["text"].split("\n"))
            yield Block(found["language"], text, line, found["directive"] or "", found["argument"] or "")


@dataclass
class Page:
    """A page that is being followed, in a folder of its own."""

    path: Path
    folder: Path
    port: int = field(default_factory=free_port)
    output: str = ""
    background: list[tuple[subprocess.Popen[bytes], Path]] = field(default_factory=list)
    python: subprocess.Popen[str] | None = None

    def __post_init__(self) -> None:
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("GEAR", "PYTEST", "DJANGO"))}
        here = f"{self.folder}:{clean.get('PYTHONPATH', '')}".rstrip(":")
        path = f"{Path(sys.executable).parent}:{clean['PATH']}"
        self.env = {**clean, "PATH": path, "PORT": str(self.port), "HOME": str(self.folder), "PYTHONPATH": here}
        self.env["GEARMAN_SERVERS"] = f"embedded://127.0.0.1:{free_port()}"
        self.env["PYTHONUNBUFFERED"] = "1"
        # The page's own pytest: with our plugin, and without a dozen others that take their time.
        self.env |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_PLUGINS": "gearwsgi.pytest_plugin"}

    def follow(self) -> None:
        """Do what the page says, block by block."""
        if "<!-- page: capture -->" in self.path.read_text():
            self.run_python(Block("python", CAPTURE, 0))
        for block in read_blocks(self.path):
            where = f"{self.path.name}, line {block.line}"
            try:
                self.do(block)
            except AssertionError as error:
                raise AssertionError(f"{where}: {error}") from error

    def do(self, block: Block) -> None:
        text = block.text.replace("127.0.0.1:8080", f"127.0.0.1:{self.port}")
        match block.directive, block.language:
            case "file", _:
                target = self.folder / block.argument
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(text + "\n")
                if block.language == "python":
                    compile(text, block.argument, "exec")
            case "not run", _:
                assert block.argument, "say why"
            case "output", _:
                self.compare(text)
            case "background", _:
                self.start(text, block.argument)
            case "fails", _:
                self.run(text, fails=True)
            case "", "python":
                self.run_python(Block("python", text, block.line))
            case "", "sh":
                self.run(text)
            case "", "ini":
                configparser.ConfigParser(interpolation=None, strict=False).read_string(text)
            case "", "toml":
                tomllib.loads(text)
            case "", "json":
                json.loads(text)
            case "", "text":
                pass
            case other:
                raise AssertionError(f"nobody knows how to run {other}")

    def run(self, text: str, *, fails: bool = False) -> None:
        lines = [
            line for line in text.split("\n") if not line.startswith(("pip install", "python3 -m venv", ". .venv"))
        ]
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", "\n".join(lines)],
            cwd=self.folder, env=self.env, capture_output=True, text=True, timeout=PATIENCE, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        self.output = done.stdout + done.stderr
        assert (done.returncode != 0) == fails, f"exit code {done.returncode} of\n{text}\n{self.output}"

    def start(self, text: str, ready: str) -> None:
        log = self.folder / f"background-{len(self.background)}.txt"
        with log.open("wb") as out:
            process = subprocess.Popen(
                ["bash", "-c", text],
                cwd=self.folder, env=self.env, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
            )  # fmt: skip
        self.background.append((process, log))

        def has_started() -> bool:
            assert process.poll() is None, f"{text} has ended:\n{log.read_text()}"
            return ready in log.read_text()

        until(has_started, f"{ready!r} from {text}")

    def run_python(self, block: Block) -> None:
        if self.python is None:
            self.python = subprocess.Popen(
                [sys.executable, "-c", DRIVER],
                cwd=self.folder, env=self.env, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                text=True,
            )  # fmt: skip
        assert self.python.stdin is not None and self.python.stderr is not None
        code = "\n" * block.line + block.text
        self.python.stdin.write(json.dumps([str(self.path), code]) + "\n")
        self.python.stdin.flush()
        answer = self.python.stderr.readline()
        while answer and not answer.startswith("["):
            answer = self.python.stderr.readline()
        assert answer, "Python has ended"
        trouble = json.loads(answer)[0]
        assert not trouble, trouble

    def compare(self, text: str) -> None:
        """Each line of the block was written, but for what differs each time; an ellipsis stands for anything."""

        def written() -> bool:
            logs = "".join(log.read_text(errors="replace") for _, log in self.background)
            lines = [mask(line) for line in (self.output + "\n" + logs).split("\n")]
            missing = [line for line in text.split("\n") if line and not any(matches(line, other) for other in lines)]
            self.missing = missing, lines
            return not missing

        try:
            until(written, "the output", 20)
        except AssertionError:
            raise AssertionError("not written: " + "\n".join(self.missing[0] + ["---", *self.missing[1]])) from None

    def end(self) -> None:
        if self.python is not None:
            with self.python:  # closes its pipes
                self.python.kill()
        for process, _ in self.background:
            process.send_signal(signal.SIGTERM)
        for process, _ in self.background:
            try:
                process.wait(PATIENCE)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)


def mask(line: str) -> str:
    """A line without what differs each time."""
    line = re.sub(r"\x1b\[[0-9;]*m", "", line)
    line = re.sub(r"[0-9a-f]{32}|[0-9a-f]{8}…", "ID", line)
    line = re.sub(r"[+-]?\d[\d.:-]*", "#", line)
    return re.sub(r"H:[\w.-]+:#|H:\w+#:#", "HANDLE", " ".join(line.split()))


def matches(wanted: str, line: str) -> bool:
    """Whether a masked line is what is wanted."""
    return re.fullmatch(".*?".join(map(re.escape, mask(wanted).split("…"))), line) is not None


@pytest.mark.xdist_group("port 4730")
@pytest.mark.parametrize("name", NAMES)
def test_every_code_block_of_the_page_runs(name: str, tmp_path: Path) -> None:
    if not shutil.which("curl") and "curl" in NAMES[name].read_text():
        pytest.skip("curl is not installed")
    page = Page(NAMES[name], tmp_path)
    try:
        page.follow()
    finally:
        page.end()


COMMAND = re.compile(
    r"(?:^|[\s\"`/(])gearwsgi ((?:worker|server|send|status|outbox|dead|dashboard|dev|check)\b(?!:)[^\n`|)\"…]*)", re.M
)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "docs/commands.md"])
def test_every_command_on_the_page_is_one(name: str) -> None:
    for found in COMMAND.finditer(NAMES[name].read_text().replace("\\\n", " ")):
        text = re.sub(r"\s(#|&|>|2>|,|;|and |is |lists|in |to |or |shows).*", "", found[1]).rstrip(".,:; ")
        words = shlex.split(re.sub(r"[\[\]<>]", "", text)) if text.count("'") % 2 == 0 else text.split()
        words = [word for word in words if word != "$MAINPID"]
        try:
            check_command(words)
        except click.UsageError as error:
            if not isinstance(error, click.MissingParameter):
                raise AssertionError(f"gearwsgi {found[1]}: {error.message}") from error


def check_command(words: list[str]) -> None:
    """Raise click.UsageError unless the words are a command of ours."""
    command: click.Command | None = cli
    name: str | None = "gearwsgi"
    while isinstance(command, click.Group):
        if not words:
            return
        name, command, words = command.resolve_command(click.Context(command), words)
    assert command is not None
    command.make_context(name, words)


def test_the_tables_that_are_made_from_the_code_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "generate.py"), "--check"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_link_of_the_documentation_is_broken() -> None:
    broken = []
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for link in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
            target = link.partition("#")[0]
            if target and not link.startswith(("http://", "https://")) and not (path.parent / target).exists():
                broken.append(f"{path.relative_to(ROOT)}: {link}")
    assert not broken


def pages_of(menu: object) -> Iterator[str]:
    """The pages in a menu, at any depth."""
    for entry in menu if isinstance(menu, list) else menu.values() if isinstance(menu, dict) else []:
        if isinstance(entry, str):
            yield entry
        else:
            yield from pages_of(entry)


def test_every_page_is_in_the_menu_once_and_nothing_else_is() -> None:
    menu = tomllib.loads((ROOT / "zensical.toml").read_text())["project"]["nav"]
    assert sorted(pages_of(menu)) == sorted(str(path.relative_to(ROOT / "docs")) for path in PAGES)


def test_the_pages_load_nothing_from_elsewhere() -> None:
    theme = tomllib.loads((ROOT / "zensical.toml").read_text())["project"]["theme"]
    assert theme["font"] is False  # a name here is one of a font that each reader's browser fetches
    for path in [ROOT / "zensical.toml", *(ROOT / "docs" / "theme").iterdir(), ROOT / "docs" / "theme.css"]:
        assert "//" not in path.read_text(), path


def said(call: ast.Call) -> str:
    """The longest piece of text in a call's arguments that is the same each time."""
    pieces = [""]
    for argument in call.args:
        for node in ast.walk(argument):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                pieces += re.split(r"%[\d.]*[sdfr]", node.value)
    return max((" ".join(piece.split()).strip(" ,;:()") for piece in pieces), key=len)


def log_lines() -> Iterator[tuple[str, str]]:
    """Where the package writes to its log, and what."""
    for path in sorted((ROOT / "gearwsgi").rglob("*.py")):
        if "server" in path.parts or path.name in ("dev.py", "devchild.py"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                owner = node.func.value
                name = f"{owner.id}.{node.func.attr}" if isinstance(owner, ast.Name) else ""
                writes = name in ("log.write", "log.note", "_log.info", "_log.warning", "_log.error")
                if (writes or node.func.attr == "say") and len(said(node)) > 5:
                    yield f"{path.name}:{node.lineno}", said(node)


def test_every_line_that_the_log_can_have_is_on_its_page() -> None:
    page = " ".join((ROOT / "docs" / "errors.md").read_text().replace("`", "").split())
    lines = dict(log_lines())
    assert len(lines) > 30
    missing = {where: text for where, text in lines.items() if text.replace("`", "") not in page}
    assert not missing, "\n".join(f"{where}: {text}" for where, text in missing.items())


def test_every_error_is_on_its_page() -> None:
    page = (ROOT / "docs" / "errors.md").read_text()
    assert [name for name in errors.__all__ if f"`{name}`" not in page and name != "GearwsgiError"] == []
