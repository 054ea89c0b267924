# SPDX-License-Identifier: LGPL-2.1-or-later
"""The engine's process: its events, its errors, and every way it can die."""

import io
import os
import signal
import time

import pytest

from lxc_cr_plugin.errors import (
    Cancelled,
    CheckpointError,
    EngineDied,
    HostError,
    ImageError,
    IsolationError,
    RestartError,
    StoreError,
    UnsupportedError,
)
from lxc_cr_plugin.log import Reporter
from lxc_cr_plugin.native import process
from lxc_cr_plugin.native.process import EngineProcess
from lxc_cr_plugin.run import Pipe, start_time

from .processes import open_fds


def failure(**members):
    return {"code": "CR_SYSTEM", "errnum": 0, "pid": 0, "message": "It failed", **members}


def engine(work, **options):
    listener = options.pop("listener", Reporter(err=io.StringIO()))
    return EngineProcess(work, failure=CheckpointError, listener=listener, **options)


def run(work, **options):
    with engine(work, **options) as running:
        running.finish()
        return running


class Ears:
    lowest_level = 0

    def __init__(self):
        self.heard = []

    def log(self, level, text):
        self.heard.append((level, text))

    def progress(self, stage, done, total):
        self.heard.append((stage, done, total))


def test_events_arrive_in_order():
    def work(emit):
        emit({"event": "log", "level": 10, "text": "a\udcff\n"})
        emit({"event": "progress", "stage": "writing", "done": 2**63, "total": 2**64 - 1})

    ears = Ears()
    run(work, listener=ears)
    assert ears.heard == [(10, "a\udcff\n"), ("writing", 2**63, 2**64 - 1)]


def test_many_events_do_not_block():
    def work(emit):
        for number in range(5000):
            emit({"event": "log", "level": 10, "text": "x" * 200 + str(number)})

    ears = Ears()
    run(work, listener=ears)
    assert len(ears.heard) == 5000


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("CR_SYSTEM", CheckpointError),
        ("CR_UNSUPPORTED", UnsupportedError),
        ("CR_ISOLATION", IsolationError),
        ("CR_GONE", CheckpointError),
        ("CR_IMAGE", ImageError),
        ("CR_HOST", HostError),
        ("CR_CANCELLED", Cancelled),
        ("CR_MEMORY", HostError),
        ("CR_INTERNAL", CheckpointError),
        ("99", CheckpointError),
    ],
)
def test_codes_choose_the_class(code, expected):
    with pytest.raises(expected) as caught:
        run(lambda _emit: failure(code=code))
    assert type(caught.value) is expected


def test_every_code_of_the_engine_is_known():
    from lxc_cr_plugin.native import ffi

    ordinary = {"CR_OK", "CR_SYSTEM", "CR_GONE", "CR_INTERNAL"}
    codes = set(ffi.typeof("enum cr_code").elements.values())
    assert codes - ordinary == set(process.ERROR_CLASSES)


def test_an_error_keeps_its_members():
    error = failure(errnum=24, pid=12, comm="redis", object="eventfd", remedy="Raise the limit")
    with pytest.raises(CheckpointError, match="It failed") as caught:
        run(lambda _emit: error)
    found = caught.value
    assert (found.errno, found.pid, found.comm) == (24, 12, "redis")
    assert (found.object, found.hint) == ("eventfd", "Raise the limit")


def test_a_full_disk_is_the_stores_problem():
    error = failure(errnum=28, errno_name="ENOSPC")
    with pytest.raises(StoreError) as caught:
        run(lambda _emit: error)
    assert "lxc-cr rm" in caught.value.hint
    # not at a restart, which writes nothing there
    found = process.to_exception(error, failure=RestartError)
    assert type(found) is RestartError
    assert "of the container" in found.hint


def test_obstacles_come_with_the_error():
    def work(emit):
        for code, message in (("CR_UNSUPPORTED", "a"), ("CR_ISOLATION", "b"), ("CR_HOST", "c")):
            emit({"event": "obstacle", **failure(code=code, message=message)})
        return failure(code="CR_UNSUPPORTED")

    with pytest.raises(UnsupportedError) as caught:
        run(work)
    assert [(o.kind, o.message) for o in caught.value.obstacles] == [
        ("unsupported", "a"),
        ("isolation", "b"),
        ("host", "c"),
    ]


def test_obstacles_without_an_error():
    running = run(lambda emit: emit({"event": "obstacle", **failure(message="a")}))
    assert [obstacle.message for obstacle in running.obstacles] == ["a"]


def test_killed():
    with pytest.raises(EngineDied, match="killed by SIGKILL") as caught:
        run(lambda _emit: os.kill(os.getpid(), signal.SIGKILL))
    assert "dmesg" in caught.value.hint


def test_crashed():
    with pytest.raises(EngineDied, match="crashed with SIGSEGV"):
        run(lambda _emit: os.kill(os.getpid(), signal.SIGSEGV))


def test_ended_without_a_word():
    with pytest.raises(EngineDied, match="exit code 3"):
        run(lambda _emit: os._exit(3))


def test_died_in_the_middle_of_a_line():
    def work(_emit):
        for fd in range(3, 64):
            try:
                os.write(fd, b'{"event": "lo')
            except OSError:
                continue
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(EngineDied, match="SIGKILL"):
        run(work)


def test_waiting_for_a_byte():
    with Pipe() as written, Pipe() as answer:

        def work(emit):
            emit({"event": "log", "level": 10, "text": "before"})
            os.write(written.write, b"W")
            os.read(answer.read, 1)
            emit({"event": "log", "level": 10, "text": "after"})

        ears = Ears()
        with engine(work, listener=ears, keep=(written.write, answer.read)) as running:
            written.close_write()
            assert running.wait_for(written.read) == b"W"
            os.write(answer.write, b"x")
            running.finish()
        assert ears.heard == [(10, "before"), (10, "after")]


def test_waiting_for_a_byte_that_never_comes():
    with Pipe() as written:
        with engine(lambda _emit: failure(), keep=(written.write,)) as running:
            written.close_write()
            assert running.wait_for(written.read) == b""
            with pytest.raises(CheckpointError):
                running.finish()


def test_an_engine_that_does_not_end_is_killed(monkeypatch):
    monkeypatch.setattr(process, "PATIENCE", 0.05)
    with engine(lambda _emit: time.sleep(60)) as running:
        pass
    assert start_time(running._child.pid) is None


def test_an_engine_may_finish_before_it_is_killed(tmp_path):
    def work(_emit):
        time.sleep(0.05)
        (tmp_path / "undone").touch()

    with pytest.raises(ValueError, match="x"), engine(work):
        raise ValueError("x")
    assert (tmp_path / "undone").exists()


def test_a_listener_that_is_gone_does_not_stop_the_engine(tmp_path):
    def work(emit):
        time.sleep(0.05)
        emit({"event": "log", "level": 10, "text": "anybody?"})
        (tmp_path / "done").touch()

    with engine(work) as running:
        running._pipe.close_read()
        running._eof = True
    # Killed by leaving the block, or done before that: either way no traceback and no zombie.
    assert start_time(running._child.pid) is None


def test_no_descriptor_is_left():
    before = open_fds()
    run(lambda _emit: None)
    with pytest.raises(EngineDied):
        run(lambda _emit: os._exit(1))
    assert open_fds() == before
