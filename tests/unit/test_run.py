# SPDX-License-Identifier: LGPL-2.1-or-later
"""Forked processes: what they keep, how they end, what signals do."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lxc_cr_plugin.errors import Cancelled
from lxc_cr_plugin.run import (
    Pipe,
    fork,
    is_reapable,
    kill_process,
    signals_cancel,
    signals_ignored,
    start_time,
    until,
)

from .processes import open_fds


def test_exit_code():
    with fork(lambda: 7) as child:
        assert child.wait() == 7
        assert child.wait() == 7


def test_death_by_signal():
    with fork(lambda: os.kill(os.getpid(), signal.SIGSEGV) or 0) as child:
        assert child.wait() == -signal.SIGSEGV


def test_an_exception_is_exit_code_1(capfd):
    def fail():
        raise ValueError("for the test")

    with fork(fail) as child:
        assert child.wait() == 1
    assert "ValueError: for the test" in capfd.readouterr().err


def test_a_child_that_is_left_is_killed():
    with fork(lambda: time.sleep(60) or 0) as child:
        assert child.wait(timeout=0.01) is None
    assert child.wait() == -signal.SIGKILL
    assert start_time(child.pid) is None


def test_only_what_is_kept_stays_open():
    with Pipe() as kept, Pipe() as closed, Pipe() as answer:

        def look():
            fds = open_fds()
            wanted = {0, 1, 2, kept.read, answer.write}
            # One more: the directory that lists them.
            os.write(answer.write, b"y" if len(fds - wanted) == 1 and wanted <= fds else b"n")
            return 0

        assert closed.write > kept.read
        with fork(look, keep=(kept.read, answer.write)) as child:
            child.wait()
        assert os.read(answer.read, 1) == b"y"


def test_nothing_is_left_open():
    before = open_fds()
    with Pipe(), fork(lambda: 0) as child:
        child.wait()
    assert open_fds() == before


def test_an_interruption_right_behind_a_close(monkeypatch):
    """Whoever cleans up closes nothing twice: the number may be another one's by then."""

    def interrupted(fd):
        close(fd)
        raise Cancelled("Interrupted")

    before, close = open_fds(), os.close
    pipe, child = Pipe(), fork(lambda: 0)
    with monkeypatch.context() as context:
        context.setattr(os, "close", interrupted)
        for one in (pipe.close_read, pipe.close_write, child.__exit__):
            with pytest.raises(Cancelled):
                one()
    pipe.close()
    child.__exit__()
    assert open_fds() == before


def test_a_session_of_its_own_ignores_the_terminal():
    with Pipe() as ready:

        def work():
            os.write(ready.write, b"x")
            time.sleep(60)
            return 0

        with fork(work, keep=(ready.write,), session=True) as child:
            os.read(ready.read, 1)
            assert os.getsid(child.pid) == child.pid
            os.kill(child.pid, signal.SIGINT)
            os.kill(child.pid, signal.SIGTERM)
            assert child.wait(timeout=0.05) is None


@pytest.fixture
def number(request):
    """A signal that is not ignored: a shell starts what runs in the background with SIGINT ignored."""
    before = signal.signal(request.param, signal.default_int_handler)
    yield request.param
    signal.signal(request.param, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], indirect=True)
def test_signals_cancel_once(number):
    before = signal.getsignal(number)
    with pytest.raises(Cancelled, match=number.name), signals_cancel():  # noqa: PT012
        try:
            os.kill(os.getpid(), number)
            time.sleep(5)
        finally:
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


def test_signals_ignored():
    with signals_cancel(), signals_ignored():
        os.kill(os.getpid(), signal.SIGINT)


def test_start_time():
    assert start_time(os.getpid()) > 0
    assert start_time(2**30) is None


def test_until():
    answers = iter([False, False, True])
    assert until(lambda: next(answers), timeout=60, pause=0)
    assert not until(lambda: False, timeout=0.01)


def test_only_the_process_that_is_meant_is_killed():
    with Pipe() as gate, fork(lambda: len(os.read(gate.read, 1)), keep=(gate.read,)) as child:
        started = start_time(child.pid)
        assert not kill_process(child.pid, started=started + 1)
        assert child.wait(timeout=0.05) is None
        assert kill_process(child.pid, started=started)
        assert child.wait() == -signal.SIGKILL
        assert not kill_process(child.pid, started=started)


# <linux/ptrace.h>
PTRACE_SEIZE = 0x4206


def test_a_zombie_that_a_tracer_holds_is_not_its_parents():
    def trace(pid, ready, end):
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.ptrace(PTRACE_SEIZE, pid, None, None) != 0:
            return ctypes.get_errno()
        os.write(ready.write, b"!")
        # It does not wait for the one that it traces.
        return len(os.read(end.read, 1))

    with Pipe() as ready, Pipe() as end, fork(signal.pause) as child:
        started = start_time(child.pid)
        assert not is_reapable(child.pid, started=started)
        keep = (ready.write, end.read)
        with fork(lambda: trace(child.pid, ready, end), keep=keep) as tracer:
            assert os.read(ready.read, 1)
            child.kill()
            stat = Path(f"/proc/{child.pid}/stat")
            assert until(lambda: ") Z " in stat.read_text(), timeout=60)
            assert not is_reapable(child.pid, started=started)
            os.write(end.write, b"!")
            assert tracer.wait() == 1
        assert is_reapable(child.pid, started=started)
        assert not is_reapable(child.pid, started=started + 1)
        child.wait()
        assert not is_reapable(child.pid, started=started)


CLOSED = """
import os, subprocess, sys
from lxc_cr_plugin.run import hold_standard_descriptors
os.closerange(0, 3)
hold_standard_descriptors()
fds = [f"/proc/self/fd/{fd}" for fd in range(3)]
sys.exit(subprocess.call(["readlink", *fds], close_fds=False, stdout=int(sys.argv[1])))
"""


def test_what_we_execute_has_descriptors_that_were_closed():
    with Pipe() as pipe:
        command = [sys.executable, "-c", CLOSED, str(pipe.write)]
        subprocess.run(command, pass_fds=[pipe.write], check=True)
        pipe.close_write()
        told = os.read(pipe.read, 1 << 12).decode().split()
    assert (told[0], told[2]) == (os.devnull, os.devnull)
