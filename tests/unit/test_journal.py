# SPDX-License-Identifier: LGPL-2.1-or-later
"""Journals: what a killed command leaves is undone by the next one, and only then."""

import contextlib
import fcntl
import io
import json
import os
import subprocess
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from lxc_cr_plugin import journal as journal_module
from lxc_cr_plugin.errors import Cancelled, ContainerError, HostError
from lxc_cr_plugin.freezer import Freezer
from lxc_cr_plugin.journal import CHECKPOINT, RESTART, Journals, entry_of_this_process
from lxc_cr_plugin.log import Reporter
from lxc_cr_plugin.run import Pipe, fork, start_time, until

# The system call in which a reader of a fifo waits for a writer.
OPENAT = "257 "

WEB = {"container": "web", "lxcpath": "/var/lib/lxc"}


class Desk:
    """Journals in a directory, and what they did."""

    def __init__(self, directory):
        self.directory = directory
        self.stopped = []
        self.errors = io.StringIO()
        self.report = Reporter(err=self.errors)

    def open(self):
        return Journals(
            run_dir=self.directory / "run", report=self.report, stop_container=self.stop
        )

    def stop(self, entry):
        self.stopped.append((entry.container, entry.lxcpath, entry.init))
        return entry.init is not None

    def freezer(self, state="FROZEN"):
        path = self.directory / "freezer"
        path.mkdir(exist_ok=True)
        (path / "freezer.state").write_text(state)
        return Freezer(path, is_v2=False)

    def killed(self, entry):
        """What a command leaves that was killed with the journal @entry."""

        def work():
            journals = self.open()
            with journals.locked(**WEB), journals.written(entry):
                os._exit(0)

        with fork(work) as child:
            assert child.wait() == 0


@pytest.fixture
def desk(tmp_path):
    return Desk(tmp_path)


def leftovers(desk):
    return [path.name for path in (desk.directory / "run").iterdir() if path.suffix != ".lock"]


def test_nothing_to_repair(desk):
    desk.open().repair()
    assert desk.errors.getvalue() == ""


def test_a_journal_ends_with_its_block(desk):
    journals = desk.open()
    with journals.locked(**WEB), journals.written(entry_of_this_process(operation="x", **WEB)):
        (name,) = leftovers(desk)
        members = json.loads((desk.directory / "run" / name).read_text())
        assert members["pid"] == os.getpid()
        assert name.startswith("web-")
    assert leftovers(desk) == []
    desk.open().repair()
    assert desk.errors.getvalue() == ""


def test_a_killed_checkpoint_is_thawed(desk):
    freezer = desk.freezer()
    desk.killed(entry_of_this_process(operation=CHECKPOINT, freezer=freezer, **WEB))
    assert freezer.frozen()
    desk.open().repair()
    assert not freezer.frozen()
    assert leftovers(desk) == []
    assert desk.stopped == []
    assert desk.errors.getvalue() == (
        "Repaired container 'web' after a killed checkpoint: thawed it\n"
    )


def test_a_failed_checkpoint_is_thawed_at_once(desk):
    freezer = desk.freezer()
    journals = desk.open()
    entry = entry_of_this_process(operation=CHECKPOINT, freezer=freezer, **WEB)
    with pytest.raises(ValueError, match="x"), journals.locked(**WEB), journals.written(entry):
        raise ValueError("x")
    assert not freezer.frozen()


def test_a_freezer_that_is_gone(desk, tmp_path):
    gone = Freezer(tmp_path / "gone", is_v2=True)
    desk.killed(entry_of_this_process(operation=CHECKPOINT, freezer=gone, **WEB))
    desk.open().repair()
    assert leftovers(desk) == []


def test_a_killed_restart_is_stopped(desk, tmp_path):
    place = tmp_path / "run" / "meet-1"
    desk.open()
    place.mkdir()
    entry = entry_of_this_process(operation=RESTART, meeting_place=place, **WEB)
    desk.killed(entry._replace(init=4711, init_started=9))
    desk.open().repair()
    assert desk.stopped == [("web", "/var/lib/lxc", 4711)]
    assert leftovers(desk) == []
    assert "removed its meeting place, stopped it" in desk.errors.getvalue()


def test_a_restart_whose_tasks_were_released_is_left_alone(desk):
    def work():
        journals = desk.open()
        entry = entry_of_this_process(operation=RESTART, **WEB)
        with journals.locked(**WEB), journals.written(entry) as journal:
            journal.released()
            os._exit(0)

    with fork(work) as child:
        child.wait()
    desk.open().repair()
    assert desk.stopped == []
    assert leftovers(desk) == []


def test_a_command_that_could_not_confirm_stops_the_container(desk):
    """Released is for the next command only: this one knows that something is wrong."""
    journals = desk.open()
    entry = entry_of_this_process(operation=RESTART, **WEB)
    with pytest.raises(ValueError, match="x"), journals.locked(**WEB):  # noqa: PT012
        with journals.written(entry) as journal:
            with fork(lambda: engine_ends(journal)) as engine:
                assert engine.wait() == 0
            raise ValueError("x")
    assert desk.stopped == [("web", "/var/lib/lxc", os.getpid())]


def engine_ends(journal):
    """What the engine does with the journal, in a process of its own."""
    journal.seized(os.getppid())
    journal.released()
    return 0


def test_only_the_init_that_was_taken_over_is_ours(desk):
    """Its identity is in the journal before it may execute anything; before, there is none."""
    journals = desk.open()
    entry = entry_of_this_process(operation=RESTART, **WEB)
    with journals.locked(**WEB), journals.written(entry) as journal:
        (path,) = (desk.directory / "run").glob("*.json")
        assert json.loads(path.read_text())["init"] is None
        journal.seized(os.getpid())
        noted = json.loads(path.read_text())
        assert noted["init"] == os.getpid()
        assert noted["init_started"] == start_time(os.getpid())
        with pytest.raises(ContainerError, match="has ended"):
            journal.seized(2**22 + 1)
        journal.confirm()


def test_a_confirmed_restart_stays(desk):
    journals = desk.open()
    entry = entry_of_this_process(operation=RESTART, **WEB)
    with journals.locked(**WEB), journals.written(entry) as journal:
        journal.confirm()
    assert desk.stopped == []


def test_a_lock_that_is_held_for_a_look(desk):
    """Every command takes each lock for a moment, to see whether there is something to repair."""
    with desk.open().locked(**WEB):
        pass
    (lock,) = (desk.directory / "run").glob("*.lock")
    fd = os.open(lock, os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    over = threading.Event()

    def end() -> None:
        over.set()
        os.close(fd)

    look = threading.Timer(0.1, end)
    look.start()
    with desk.open().locked(**WEB):
        assert over.is_set()
    look.join()


def test_two_commands_on_one_container(desk, monkeypatch):
    monkeypatch.setattr(journal_module, "MOMENT", 0.05)
    with desk.open().locked(**WEB), pytest.raises(ContainerError, match="being worked on"):
        desk.open().locked(**WEB).__enter__()


def test_the_message_names_the_other_command(desk):
    journals = desk.open()
    entry = entry_of_this_process(operation=CHECKPOINT, **WEB)
    with (
        journals.locked(**WEB),
        journals.written(entry),
        pytest.raises(ContainerError, match=f"the checkpoint of process {os.getpid()}"),
    ):
        desk.open().locked(**WEB).__enter__()


def test_an_operation_of_several_parts_holds_one_lock(desk, monkeypatch):
    monkeypatch.setattr(journal_module, "MOMENT", 0.05)
    journals = desk.open()
    with journals.locked(**WEB) as outer:
        with journals.locked(**WEB) as inner:
            assert inner == outer
        with pytest.raises(ContainerError, match="being worked on"):
            desk.open().locked(**WEB).__enter__()
        with desk.open().locked_if_free(**WEB) as free:
            assert not free
    with desk.open().locked_if_free(**WEB) as free:
        assert free
        with pytest.raises(ContainerError, match="being worked on"):
            desk.open().locked(**WEB).__enter__()


def test_two_containers_at_once(desk):
    other = {"container": "web", "lxcpath": "/srv/lxc"}
    with desk.open().locked(**WEB), desk.open().locked(**other):
        pass


def test_a_living_command_is_not_repaired(desk):
    freezer = desk.freezer()
    journals = desk.open()
    entry = entry_of_this_process(operation=CHECKPOINT, freezer=freezer, **WEB)
    with journals.locked(**WEB), journals.written(entry):
        desk.open().repair()
        assert freezer.frozen()


def orphan(desk, freezer, container=WEB):
    """An engine, as it were, that goes on after its command was killed; and what lets it end."""
    gate = Pipe()

    def command():
        journals = desk.open()
        entry = entry_of_this_process(operation=CHECKPOINT, freezer=freezer, **container)
        with journals.locked(**container) as lock, journals.written(entry):
            fork(lambda: len(os.read(gate.read, 1)), keep=(lock, gate.read))
            os._exit(0)

    with fork(command, keep=(gate.read, gate.write)) as child:
        child.wait()
    gate.close_read()
    return gate


def test_an_engine_that_outlives_its_command_is_waited_for(desk, monkeypatch):
    freezer = desk.freezer()
    gate = orphan(desk, freezer)
    monkeypatch.setattr(journal_module, "MOMENT", 0.05)
    desk.open().repair()
    assert freezer.frozen()
    monkeypatch.setattr(journal_module, "ORPHAN_PATIENCE", 0.05)
    with pytest.raises(ContainerError, match="being worked on"):
        desk.open().locked(**WEB).__enter__()
    gate.close()
    monkeypatch.setattr(journal_module, "ORPHAN_PATIENCE", 60)
    with desk.open().locked(**WEB):
        assert not freezer.frozen()
    assert "Waiting for the engine" in desk.errors.getvalue()


def test_an_engine_that_finishes_in_a_moment_is_repaired_by_any_command(desk, monkeypatch):
    monkeypatch.setattr(journal_module, "MOMENT", 60)
    freezer = desk.freezer()
    gate = orphan(desk, freezer)
    threading.Timer(0.1, gate.close).start()
    desk.open().repair()
    assert not freezer.frozen()
    assert leftovers(desk) == []


def test_several_engines_get_one_moment_together(desk, monkeypatch):
    waited = []
    with contextlib.ExitStack() as undo:
        for name in ("one", "two", "three"):
            gate = orphan(desk, None, {**WEB, "container": name})
            undo.callback(gate.close)
        monkeypatch.setattr(journal_module, "time", SimpleNamespace(monotonic=lambda: sum(waited)))
        monkeypatch.setattr(
            journal_module, "until", lambda _, *, timeout: waited.append(timeout) or False
        )
        desk.open().repair()
    assert waited == [journal_module.MOMENT, 0, 0]


def test_a_journal_that_is_no_json_is_removed(desk):
    desk.open()
    (desk.directory / "run" / "x.json").write_text("{")
    desk.open().repair()
    assert leftovers(desk) == []


def test_a_repair_that_fails_is_tried_again(desk):
    desk.killed(entry_of_this_process(operation=RESTART, **WEB))
    works = desk.stop

    def fails(_entry):
        raise ContainerError("did not stop")

    desk.stop = fails
    desk.open().repair()
    assert "warning: Failed to repair container 'web': did not stop" in desk.errors.getvalue()

    def interrupted(_entry):
        raise Cancelled("Interrupted by SIGINT")

    desk.stop = interrupted
    with pytest.raises(Cancelled):
        desk.open().repair()
    desk.stop = works
    desk.open().repair()
    assert desk.stopped == [("web", "/var/lib/lxc", None)]


def test_a_run_directory_that_others_can_write(desk, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run").chmod(0o777)
    with pytest.raises(HostError, match="others than root"):
        desk.open()


def test_long_names_are_file_names_too(desk):
    long = {"container": "ü/" * 120, "lxcpath": "/x" * 2000}
    with desk.open().locked(**long):
        pass


def test_the_lock_is_a_lock(desk):
    with desk.open().locked(**WEB) as fd:
        other = os.open(f"/proc/self/fd/{fd}", os.O_RDWR)
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(other)


@pytest.mark.parametrize(("waits", "told"), [("request.1", b""), ("reply", b"abort\n")])
def test_a_hook_that_waits_is_dismissed(waits, told, desk, tmp_path):
    """Nobody will answer it: it must not wait until its time is over, in the first fifo or the second."""
    place = tmp_path / "meet"
    place.mkdir()
    for name in ("request.1", "reply"):
        os.mkfifo(place / name)
    desk.killed(entry_of_this_process(operation=RESTART, meeting_place=place, **WEB))
    script = 'test "$2" = reply || echo 1 >"$1/request.1"; exec cat "$1/reply"'
    command = ["sh", "-c", script, "sh", place, waits]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as hook:
        proc = Path(f"/proc/{hook.pid}")
        assert until(
            lambda: (
                " S " in (proc / "stat").read_text()
                and (proc / "syscall").read_text().startswith(OPENAT)
            ),
            timeout=60,
        )
        try:
            desk.open().repair()
            assert hook.communicate(timeout=60)[0] == told
        finally:
            hook.kill()
    assert not place.exists()
