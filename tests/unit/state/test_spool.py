"""The state directory: whose it must be, and what is read from it."""

import math
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gearwsgi.errors import GearwsgiError, SpoolError
from gearwsgi.message.model import Message
from gearwsgi.message.signature import is_signed, sign, verify
from gearwsgi.policy import Outcome
from gearwsgi.settings import Settings, read_settings
from gearwsgi.state.dead import DeadLetters
from gearwsgi.state.outbox import Outbox
from gearwsgi.state.spool import Letter, Spool, make_private_folder
from gearwsgi.state.status import read_all
from gearwsgi.wire.payload import Grabbed, Submission
from tests.integration.security.conftest import KEY

NOBODY = 65534


as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")


def by_everyone(folder: Path) -> None:
    folder.mkdir(0o700)
    folder.chmod(0o777)


def by_everyone_but_sticky(folder: Path) -> None:
    folder.mkdir(0o700)
    folder.chmod(0o1777)


def of_someone_else(folder: Path) -> None:
    folder.mkdir(0o700)
    os.chown(folder, NOBODY, NOBODY)


def a_file(folder: Path) -> None:
    folder.write_text("")


def a_link_to_nowhere(folder: Path) -> None:
    folder.symlink_to(folder.parent / "nowhere")


def a_link_to_itself(folder: Path) -> None:
    folder.symlink_to(folder)


def someone_elses_link(folder: Path) -> None:
    folder.with_name("target").mkdir(0o700)
    folder.symlink_to(folder.with_name("target"))
    os.lchown(folder, NOBODY, NOBODY)


BAD = [
    by_everyone,
    by_everyone_but_sticky,
    pytest.param(of_someone_else, marks=as_root),
    a_file,
    a_link_to_nowhere,
    a_link_to_itself,
    pytest.param(someone_elses_link, marks=as_root),
]


def mode(path: Path) -> str:
    return oct(stat.S_IMODE(path.stat().st_mode))


def submission(payload: bytes = b"POST /x HTTP/1.1\r\n\r\n", **fields: Any) -> Submission:
    return Submission("job", "u", payload, id="1" * 32, **fields)


def settings_of(folder: Path, **given_settings: Any) -> Settings:
    return read_settings({"servers": "127.0.0.1:1", "state_dir": folder, **given_settings}, {})


@pytest.mark.parametrize("make", BAD)
@pytest.mark.parametrize("inner", ["outbox", "dead"])
def test_a_folder_in_it_that_others_could_have_filled_is_refused(
    tmp_path: Path, make: Callable[[Path], None], inner: str
) -> None:
    make(tmp_path / inner)
    with pytest.raises(SpoolError, match=inner):
        Spool(tmp_path / inner, "test").put(Letter(b"x"))


@pytest.mark.parametrize("make", [by_everyone, pytest.param(of_someone_else, marks=as_root)])
def test_letters_in_a_folder_that_others_could_have_filled_are_not_read(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    make(tmp_path / "dead")
    (tmp_path / "dead" / "planted.http").write_bytes(Letter(b"x", {"trusted": "yes"}).to_bytes("dead letter"))
    spool = Spool(tmp_path / "dead", "dead letter")
    for read in (spool.names, lambda: spool.get("planted")):
        with pytest.raises(SpoolError, match="dead"):
            read()


def test_a_link_of_our_own_is_fine(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir(0o700)
    (tmp_path / "state").symlink_to(tmp_path / "target")
    make_private_folder(tmp_path / "state")


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_files_are_0600_and_folders_0700_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        settings = settings_of(tmp_path / "a" / "b" / "state")
        name = Outbox(settings).put(submission())
        Outbox(settings).relay(lambda each: "H:1")
        Outbox(settings).put(submission())
        Outbox(settings).spool.set_aside(Outbox(settings).spool.names()[0], "reason")
        DeadLetters(settings).put(Grabbed(b"H:1", b"job", b"u", b"x"), None, "why", Outcome("refused"))
    finally:
        os.umask(before)
    assert name not in Outbox(settings).spool.names()
    found = list((tmp_path / "a").rglob("*"))
    assert len(found) > 6
    for path in found:
        assert mode(path) == ("0o700" if path.is_dir() else "0o600"), path


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "..", ".", "", "a/b", "a\0", "-a", ".hidden", "a" * 100, "é"])
def test_no_name_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    spool = Spool(tmp_path / "dead", "dead letter")
    with pytest.raises(SpoolError):
        spool.get(name)
    with pytest.raises(SpoolError):
        spool.remove(name)
    with pytest.raises(SpoolError):
        DeadLetters(settings_of(tmp_path)).find(name)


def test_an_editors_copy_in_the_outbox_stops_no_task(tmp_path: Path) -> None:
    outbox = Outbox(settings_of(tmp_path))
    outbox.put(submission())
    for name in ("copy of it.http", ".hidden.http", "a~.http", "x.http.swp"):
        (tmp_path / "outbox" / name).write_text("rubbish")
    assert outbox.relay(lambda each: "H:1") == 1


IMPOSSIBLE = [
    *(b"# at: " + at for at in (b"nan", b"inf", b"-inf", b"x", b"", b"1e308", b"99999999999999", b"-5")),
    b"# queue: a\0b", b"# queue: ", b"# queue: \xff", b"# unique: ", b"# unique: a\tb", b"# unique: " + b"u" * 500,
    b"# priority: urgent",
]  # fmt: skip


@pytest.mark.parametrize("line", IMPOSSIBLE, ids=lambda line: repr(line[:20]))
def test_a_file_in_the_outbox_with_an_impossible_field_is_set_aside(tmp_path: Path, line: bytes) -> None:
    outbox = Outbox(settings_of(tmp_path))
    name = outbox.put(submission())
    path = tmp_path / "outbox" / f"{name}.http"
    key = line.partition(b": ")[0] + b": "
    lines = [line if each.startswith(key) else each for each in path.read_bytes().split(b"\n")]
    path.write_bytes(b"\n".join(lines))
    assert outbox.relay(lambda each: "H:1") == 0
    assert [each.name for each in (tmp_path / "outbox" / "bad").glob("*.http")] == [f"{name}.http"]


def test_a_file_in_the_outbox_that_is_larger_than_a_task_may_be_is_set_aside(tmp_path: Path) -> None:
    outbox = Outbox(settings_of(tmp_path, max_body=1000))
    name = outbox.put(submission(b"x" * 10_000_000))
    assert outbox.relay(lambda each: "H:1") == 0
    assert (tmp_path / "outbox" / "bad" / f"{name}.http").exists()


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "null", '{"pid": 1, "at": "x"}', '{"pid": "1", "at": 1}', '{"pid": 1, "at": 1}']
)
def test_a_status_file_that_no_supervisor_wrote_is_passed_over(tmp_path: Path, text: str) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "1.json").write_text(text)
    assert list(read_all(tmp_path)) == []


fields = st.dictionaries(st.sampled_from(["id", "reason", "queue", "trusted"]), st.text(max_size=30), max_size=4)


@given(st.binary(max_size=50), fields, st.lists(st.text(max_size=30), max_size=3))
def test_no_field_or_note_makes_another_line_of_the_head(
    payload: bytes, given_fields: dict[str, str], notes: list[str]
) -> None:
    found = Letter.from_bytes(Letter(payload, given_fields, notes).to_bytes("test"))
    assert found.message == payload
    assert found.fields.keys() == given_fields.keys()
    assert len(found.notes) == len(notes)


@given(st.binary(max_size=200).map(lambda data: b"### gearwsgi x\n" + data) | st.binary(max_size=50))
def test_any_bytes_are_a_letter_or_an_error_of_ours(data: bytes) -> None:
    try:
        Letter.from_bytes(data)
    except SpoolError:
        return


def test_an_exception_whose_text_is_a_megabyte_is_a_reason_of_a_line(tmp_path: Path) -> None:
    dead = DeadLetters(settings_of(tmp_path))
    dead.put(Grabbed(b"H:1", b"job", b"u", b"x"), None, "ValueError: " + "x\n" * 10**6, Outcome("exception"))
    (letter,) = dead.all()
    assert len(letter.reason) <= 1000 and "\n" not in letter.reason


def test_a_letter_that_does_not_say_that_it_was_verified_was_not(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, secret_keys=[KEY])
    payload = Message("POST", id="1" * 32).to_bytes()
    for fields in ({}, {"trusted": "no"}, {"trusted": ""}, {"trusted": "YES"}):
        name = Spool(tmp_path / "dead", "dead letter").put(Letter(payload, {"queue": "job", **fields}))
        letter = DeadLetters(settings).find(name)
        assert DeadLetters(settings).submission(letter).payload == payload


def test_what_waited_in_the_outbox_is_signed_anew_when_it_goes(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, secret_keys=[KEY])
    old = sign(Message("POST").to_bytes(), "job", KEY.encode(), 1000)
    outbox = Outbox(settings)
    outbox.put(submission(old))
    found = outbox.get(outbox.spool.names()[0])
    assert is_signed(found.payload) and not math.isnan(found.at)
    verify(found.payload, "job", settings.secret_keys, time.time())


def test_a_full_disk_is_an_error_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(GearwsgiError, match="No space left"):
        Outbox(settings_of(tmp_path)).put(submission())
    assert list((tmp_path / "outbox").iterdir()) == []
