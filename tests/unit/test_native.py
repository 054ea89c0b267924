# SPDX-License-Identifier: LGPL-2.1-or-later
"""The border to the engine: structs, callbacks, and who waits for whom.

A namespace of Python functions stands in for the C library; they get the real structs.
"""

import io
import os
import signal
import types

import pytest

from lxc_cr_plugin import native
from lxc_cr_plugin.errors import (
    Cancelled,
    CheckpointError,
    EngineDied,
    ImageError,
    RestartError,
    UnsupportedError,
)
from lxc_cr_plugin.log import Reporter
from lxc_cr_plugin.native import build_engine, ffi, lib
from lxc_cr_plugin.native.held_lines import HeldLines
from lxc_cr_plugin.run import Pipe, fork

TARGET = native.Target(4711, "/sys/fs/cgroup/\udcff", "/sys/fs/cgroup/freezer", True)
CODES = {name: code for code, name in ffi.typeof("enum cr_code").elements.items()}


def failure(code="CR_SYSTEM", message=b"It failed", **members):
    """A struct cr_error that nothing frees, like that of an engine about to end."""
    error = ffi.new("struct cr_error *")
    texts = [ffi.new("char[]", message), ffi.new("char[]", members.pop("comm", b"sh\xff"))]
    error.message, error.comm = texts
    error.code = CODES[code]
    error.errnum = members.pop("errnum", 0)
    error.pid = 7
    failure.alive = [error, texts]
    return error


@pytest.fixture
def engine(monkeypatch):
    """Replace functions of the library."""

    def replace(**functions):
        callbacks = {
            name: getattr(lib, name)
            for name in (
                "engine_log",
                "engine_progress",
                "engine_obstacle",
                "engine_seized",
                "engine_taken_over",
            )
        }
        monkeypatch.setattr(native, "lib", types.SimpleNamespace(**callbacks, **functions))

    return replace


@pytest.fixture
def report():
    return Reporter(out=io.StringIO(), err=io.StringIO(), debug=True)


# -- what the real library says --------------------------------------------------------------------


def test_kinds_and_steps():
    for names in (native.kinds(), native.checkpoint_steps(), native.restart_steps()):
        assert len(names) == len(set(names)) > 0
        assert all(isinstance(name, str) for name in names)


def test_fields_of_every_kind():
    for kind in native.kinds():
        fields = native.kind_fields(kind)
        assert fields is None or all({"name", "type", "doc"} <= field.keys() for field in fields)


def test_an_empty_directory_is_no_image(tmp_path, report):
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(ImageError):
            native.image_check(image_fd=fd, listener=report)
    finally:
        os.close(fd)


# -- callbacks -------------------------------------------------------------------------------------


def test_what_the_engine_says_arrives(engine, report):
    def check(options, ears, _count):
        assert ffi.string(options.cgroup) == b"/sys/fs/cgroup/\xff"
        assert ffi.string(options.freezer) == b"/sys/fs/cgroup/freezer"
        assert (options.init_pid, options.freezer_is_v2, options.image_fd) == (4711, True, -1)
        assert options.fault == ffi.NULL
        ears.log(ears.context, 0, ffi.new("char[]", b"seized"))
        ears.log(ears.context, 2, ffi.new("char[]", b"odd"))
        ears.progress(ears.context, ffi.new("char[]", b"pages"), 1, 2)
        ears.obstacle(ears.context, failure("CR_ISOLATION", b"Shared"))
        return ffi.NULL

    engine(cr_check=check)
    (obstacle,) = native.check(target=TARGET, listener=report)
    assert (obstacle.kind, obstacle.message) == ("isolation", "Shared")
    assert (obstacle.pid, obstacle.comm) == (7, "sh\udcff")
    assert report._err.getvalue() == "seized\nwarning: odd\n"


def test_debug_lines_are_not_sent_without_debug(engine):
    def check(_options, ears, _count):
        emit = ffi.from_handle(ears.context).emit
        ears.log(ears.context, 0, ffi.new("char[]", b"+ munmap(...)"))
        ears.log(ears.context, 1, ffi.new("char[]", b"done"))
        emit({"event": "log", "level": 20, "text": "end"})
        return ffi.NULL

    report = Reporter(err=io.StringIO())
    engine(cr_check=check)
    native.check(target=TARGET, listener=report)
    assert report._err.getvalue() == "done\nend\n"


def test_a_look_that_fails(engine, report):
    engine(cr_check=lambda *_: failure("CR_UNSUPPORTED"))
    with pytest.raises(UnsupportedError, match="It failed"):
        native.check(target=TARGET, listener=report)


# -- checkpoint ------------------------------------------------------------------------------------


def checkpointing(*, verdicts, written=b"W", error=None):
    """An engine that writes what it should; what it reads on verdict_fd goes to @verdicts."""

    def run(options, _ears, result):
        result.clocks.realtime = 3
        result.downtime = 2**63
        result.processes = 5
        if written:
            os.write(options.notice_fd, written)
        got = os.read(options.verdict_fd, 1)
        os.write(verdicts.write, got or b"-")
        result.writing = 9
        return error or ffi.NULL

    return run


def run_checkpoint(report, commit, *, stop=True, keep=()):
    with Pipe() as directory:
        return native.checkpoint(
            target=TARGET,
            image_fd=directory.read,
            stop=stop,
            commit=commit,
            listener=report,
            keep=keep,
            fault="here",
        )


def test_the_commit_knows_the_numbers(engine, report):
    with Pipe() as verdicts:
        engine(cr_checkpoint=checkpointing(verdicts=verdicts))
        committed = []
        result = run_checkpoint(report, committed.append, keep=(verdicts.write,))
        assert os.read(verdicts.read, 1) == b"C"
    (numbers,) = committed
    assert numbers.clocks == native.Clocks(0, 0, 3)
    assert (numbers.downtime, numbers.processes, numbers.writing) == (2**63, 5, 0)
    assert result == numbers._replace(writing=9)


def test_a_commit_that_fails_lets_the_container_run_on(engine, report):
    def commit(_numbers):
        raise ImageError("no")

    with Pipe() as verdicts:
        engine(cr_checkpoint=checkpointing(verdicts=verdicts, error=failure("CR_CANCELLED")))
        with pytest.raises(ImageError, match="no"):
            run_checkpoint(report, commit, keep=(verdicts.write,))
        # Already done when the exception arrives: nobody is left stopped.
        os.set_blocking(verdicts.read, False)
        assert os.read(verdicts.read, 1) == b"-"


@pytest.mark.parametrize("written", [b"", b"X"])
def test_files_that_are_never_durable(engine, report, written):
    def run(options, _ears, _result):
        os.write(options.notice_fd, written)
        return ffi.NULL

    engine(cr_checkpoint=run)
    with pytest.raises(EngineDied):
        run_checkpoint(report, lambda _numbers: pytest.fail("nothing to commit"))


def test_an_engine_that_fails_never_asks_for_a_commit(engine, report):
    engine(cr_checkpoint=lambda *_: failure("CR_SYSTEM", errnum=5))
    with pytest.raises(CheckpointError) as caught:
        run_checkpoint(report, lambda _numbers: pytest.fail("nothing to commit"))
    assert caught.value.errno == 5


def test_an_engine_that_fails_after_the_commit(engine, report):
    with Pipe() as verdicts:
        engine(cr_checkpoint=checkpointing(verdicts=verdicts, error=failure("CR_GONE")))
        with pytest.raises(CheckpointError):
            run_checkpoint(report, lambda _numbers: None, keep=(verdicts.write,))


def test_options_of_a_checkpoint(engine, report):
    def run(options, _ears, _result):
        assert ffi.string(options.fault) == b"here"
        assert options.stop is False
        os.fstat(options.image_fd)
        os.write(options.notice_fd, b"W")
        return ffi.NULL

    engine(cr_checkpoint=run)
    run_checkpoint(report, lambda _numbers: None, stop=False)


def capturing(options, _ears, _result):
    """An engine with files to capture."""
    for said, wanted in ((b"P", b"R"), (b"S", b"F")):
        os.write(options.notice_fd, said)
        if os.read(options.verdict_fd, 1) != wanted:
            return failure("CR_CANCELLED")
    os.write(options.notice_fd, b"W")
    return ffi.NULL


def run_capture(report, seen, **other):
    functions = {
        name: lambda *_, name=name: seen.append(name) for name in ("rehearse", "capture", "commit")
    }
    with Pipe() as directory:
        native.checkpoint(
            target=TARGET,
            image_fd=directory.read,
            stop=False,
            listener=report,
            **{**functions, **other},
        )


def test_a_rehearsal_comes_right_before_the_stop(engine, report):
    engine(cr_checkpoint=capturing)
    seen = []
    run_capture(report, seen)
    assert seen == ["rehearse", "capture", "commit"]


def test_a_rehearsal_that_fails_keeps_the_engine_from_stopping_anybody(engine, report):
    def rehearse():
        raise ImageError("no")

    with Pipe() as verdicts:

        def run(options, ears, result):
            error = capturing(options, ears, result)
            os.write(verdicts.write, b"-" if error else b"!")
            return error

        engine(cr_checkpoint=run)
        seen = []
        with pytest.raises(ImageError, match="no"):
            run_capture(report, seen, rehearse=rehearse, keep=(verdicts.write,))
        assert os.read(verdicts.read, 1) == b"-"
    assert seen == []


@pytest.mark.parametrize("last", [b"P", b"S"])
def test_an_engine_that_dies_while_it_waits_for_files(engine, report, last):
    def run(options, _ears, _result):
        for said in (b"P", b"S"):
            os.write(options.notice_fd, said)
            if said == last:
                os.kill(os.getpid(), signal.SIGKILL)
            os.read(options.verdict_fd, 1)

    engine(cr_checkpoint=run)
    with pytest.raises(EngineDied):
        run_capture(report, [])


def hold(ears, level, text):
    """What log_say() does inside the stop."""
    lines = ears.held
    data = bytes([level]) + text + b"\0"
    ffi.buffer(lines.text + lines.used, len(data))[:] = data
    lines.used += len(data)


def dying(options, ears, _result):
    """An engine that is killed under the stop, with one line half written."""
    hold(ears, 0, b"heard")
    ears.held.told = ears.held.used
    hold(ears, 0, b"Read memory of process 7")
    hold(ears, 2, b"odd \xff\nlxc-cr: done")
    used = ears.held.used
    hold(ears, 0, b"never finished")
    ears.held.used = used
    os.kill(os.getpid(), signal.SIGKILL)


def test_what_a_killed_engine_had_to_say(engine, report):
    engine(cr_checkpoint=dying)
    with pytest.raises(EngineDied):
        run_checkpoint(report, pytest.fail)
    assert (
        report._err.getvalue() == "Read memory of process 7\nwarning: odd \\udcff\\nlxc-cr: done\n"
    )


def test_what_a_crashed_engine_may_leave():
    held = HeldLines()
    lines = held.lines
    lines.text = b"\x01x\0\xffy\0" + b"z" * 100
    lines.used, lines.lost = 2**63, 4
    room = lib.CR_HELD_ROOM
    found = []
    for level, text in held.take():
        found.append((level, text))
        if text == "y":
            lines.told = room - 3
            lines.text[room - 3 : room] = b"\x01ab"
    assert found[:2] == [(20, "x"), (2560, "y")]
    assert found[2] == (20, "ab")
    assert "4 lines" in found[3][1]
    assert list(held.take()) == []


# -- restart ---------------------------------------------------------------------------------------


class Starter:
    """The process that starts the container, as container.Start."""

    def __init__(self, work):
        self.child = fork(work)
        self.pidfd = self.child.pidfd

    def wait(self):
        return self.child.wait()

    def failure(self):
        return RestartError("It did not start")


def restarting(request, report, *, seized=pytest.fail, taken_over=pytest.fail, **options):
    return native.Restart(
        image_fd=request.read,
        request_fd=request.read,
        reply_fd=request.write,
        cgroup_hint="lxc.payload.web",
        timeout=1.5,
        listener=report,
        seized=seized,
        taken_over=taken_over,
        **options,
    )


def test_restart(engine, report, tmp_path):
    def run(options, ears, result):
        assert options.timeout == 1_500_000_000
        assert ffi.string(options.cgroup_hint) == b"lxc.payload.web"
        os.write(options.ready_fd, b"R")
        assert ears.seized(ears.context, 4711) == 0
        result.init_pid = 4711
        result.pages = 2**40
        return ffi.NULL

    engine(cr_restart=run)
    mark = tmp_path / "released"
    note = tmp_path / "seized"

    def seized(pid):
        note.write_text(str(pid))

    with (
        Pipe() as request,
        restarting(request, report, seized=seized, released=mark.touch) as running,
    ):
        running.wait_ready()
        starter = Starter(lambda: 0)
        result = running.finish(starter=starter)
        starter.child.__exit__()
    assert (result.init_pid, result.pages) == (4711, 2**40)
    assert mark.exists()
    assert note.read_text() == "4711"


def test_an_init_that_cannot_be_noted(engine, report):
    """The engine hears of it, and lets the start fail."""

    def run(_options, ears, _result):
        assert ears.seized(ears.context, 4711) == -1
        return failure("CR_SYSTEM")

    def seized(_pid):
        raise OSError("No space left on device")

    engine(cr_restart=run)
    with (
        Pipe() as request,
        restarting(request, report, seized=seized, released=pytest.fail) as running,
        pytest.raises(RestartError),
    ):
        running.wait_ready()


def test_an_image_that_cannot_be_loaded(engine, report, tmp_path):
    engine(cr_restart=lambda *_: failure("CR_IMAGE"))
    mark = tmp_path / "released"
    with Pipe() as request, restarting(request, report, released=mark.touch) as running:
        with pytest.raises(ImageError):
            running.wait_ready()
    assert not mark.exists()


def waits_for_the_supervisor(options, _ears, _result):
    os.write(options.ready_fd, b"R")
    while os.read(options.supervisor_fd, 1):
        pass  # it has started the runtime
    return failure("CR_CANCELLED")


def test_a_start_that_fails_calls_the_engine_off(engine, report):
    engine(cr_restart=waits_for_the_supervisor)
    with Pipe() as request, restarting(request, report, released=pytest.fail) as running:
        running.wait_ready()
        starter = Starter(lambda: 1)
        with pytest.raises(RestartError, match="It did not start"):
            running.finish(starter=starter)
        starter.child.__exit__()


def test_the_engines_error_is_the_cause_of_a_failed_start(engine, report):
    engine(cr_restart=lambda *_: failure("CR_UNSUPPORTED"))
    with Pipe() as request, restarting(request, report, released=pytest.fail) as running:
        starter = Starter(lambda: 1)
        starter.wait()
        with pytest.raises(UnsupportedError):
            running.finish(starter=starter)
        starter.child.__exit__()


def test_leaving_early_calls_the_engine_off(engine, report):
    engine(cr_restart=waits_for_the_supervisor)
    with Pipe() as request, restarting(request, report, released=pytest.fail) as running:
        running.wait_ready()
    assert running._engine._end["error"]["code"] == "CR_CANCELLED"


def test_the_engine_calls_itself_off(engine, report):
    engine(cr_restart=lambda *_: failure("CR_CANCELLED"))
    with Pipe() as request, restarting(request, report, released=pytest.fail) as running:
        with pytest.raises(Cancelled):
            running.wait_ready()


# -- the build -------------------------------------------------------------------------------------


def test_one_header_for_both_compilers():
    text = build_engine.declarations('#ifndef X\n#include "y"\nint f(void);\n#endif\n')
    assert text == "int f(void);"


def test_sources():
    found = build_engine.sources()
    assert "lxc_cr_plugin/native/dump.c" in found
    assert not [path for path in found if "_engine" in path]
    assert found == sorted(found)


def test_the_sanitizer_build_is_another_one():
    assert "-fsanitize=address,undefined" in build_engine.compile_args(sanitize=True)
    assert "-O2" in build_engine.compile_args(sanitize=False)
    assert "-Werror" in build_engine.compile_args(sanitize=False)
