# SPDX-License-Identifier: LGPL-2.1-or-later
"""The engine, and the only package that imports it.

Every call that does work runs in a process of its own (process.py): the engine traces and forks,
which wants a single thread and nobody else's wait(2) around it; it can crash without taking the
command with it; and when it dies the kernel lets go of every task that it held. The numbers of a
result lie in memory that both processes share, because with --stop the manifest needs them before
the call returns.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import json
import mmap
import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

from ..errors import (
    Cancelled,
    CheckpointError,
    HostError,
    ImageError,
    LxcCrError,
    Obstacle,
    RestartError,
    UnsupportedError,
)
from ..lease import REMAINING, LeasePolicy
from ..run import Pipe
from . import stamp
from .process import Emit, EngineProcess, Listener, Work, died

try:
    from ._engine import ffi, lib
    from .filesystem import (
        descriptor_of,
        exchange,
        open_beneath,
        sync_filesystem,
        write_back,
    )
    from .held_lines import HeldLines
except ImportError as error:
    raise stamp.unusable(f"The engine does not load: {error}") from error

__all__ = [
    "CheckpointResult",
    "Clocks",
    "Restart",
    "RestartResult",
    "Target",
    "check",
    "checkpoint",
    "checkpoint_steps",
    "descriptor_of",
    "exchange",
    "image_check",
    "kind_fields",
    "kinds",
    "open_beneath",
    "restart_steps",
    "sync_filesystem",
    "write_back",
]


stamp.refuse_other(ffi.string(lib.engine_stamp).decode() if hasattr(lib, "engine_stamp") else None)


class Target(NamedTuple):
    """What to checkpoint: the host's pid of the container's init and the directories of its cgroup.

    `cgroup` holds all its tasks; `freezer` is None when there is nothing to freeze it with.
    """

    init_pid: int
    cgroup: str
    freezer: str | None
    freezer_is_v2: bool


class Scope(NamedTuple):
    """What of a container goes into an image, and what stands in the way of one.

    `deleted_file_limit`, in bytes, is how large a deleted file may be; 0: any size. With
    `drop_attached` processes that came in by lxc-attach are no obstacle, but left out, and with
    `ignore_outside_locks` it is none that a process outside has locked a file of the container.
    """

    deleted_file_limit: int = 0
    drop_attached: bool = False
    ignore_outside_locks: bool = False


DEFAULT_SCOPE = Scope()


class Clocks(NamedTuple):
    """The reference clocks read together at T0, nanoseconds."""

    monotonic: int
    boottime: int
    realtime: int


class CheckpointResult(NamedTuple):
    """Numbers of a checkpoint; times in nanoseconds, `pages` of 4096 bytes."""

    clocks: Clocks
    downtime: int
    stopping: int
    collecting: int
    capturing: int
    writing: int
    processes: int
    threads: int
    files: int
    pages: int


class RestartResult(NamedTuple):
    """Numbers of a restart; times in nanoseconds, `pages` of 4096 bytes, `init_pid` of the host.

    `late` is how far the container's clocks have gone on while it was not running yet.
    """

    init_pid: int
    loading: int
    building: int
    releasing: int
    released: int
    late: int
    processes: int
    threads: int
    files: int
    pages: int


class Starter(Protocol):
    """The process that starts the container; run.Child with a reason for its failure."""

    pidfd: int

    def wait(self) -> int | None:
        """Its exit code, 0 for success."""

    def failure(self) -> LxcCrError:
        """What to tell the user about a failed start."""


def kinds() -> list[str]:
    """Names of the kinds of kernel objects this engine knows, in the order of its table."""
    return _names(lib.cr_kind_name)


def kind_fields(kind: str) -> Any:
    """Field names, types and docs of @kind as the engine declares them; None: nothing recorded."""
    text = lib.cr_kind_fields(kinds().index(kind))
    if not text:
        return None
    try:
        return json.loads(ffi.string(text))
    finally:
        lib.cr_text_free(text)


def checkpoint_steps() -> list[str]:
    """Steps of a checkpoint in order; each is a place for fault injection."""
    return _names(lib.cr_checkpoint_step)


def restart_steps() -> list[str]:
    """Steps of a restart in order; each is a place for fault injection."""
    return _names(lib.cr_restart_step)


def check(
    *,
    target: Target,
    listener: Listener,
    scope: Scope = DEFAULT_SCOPE,
) -> list[Obstacle]:
    """What stands in the way of a checkpoint, found without stopping anything.

    Raises HostError and others only when the look itself fails.
    """

    def call(ears: Any) -> Any:
        options, alive = _checkpoint_options(target=target, image_fd=-1, fault=None)
        options.deleted_file_limit = scope.deleted_file_limit
        options.drop_attached = scope.drop_attached
        options.ignore_outside_locks = scope.ignore_outside_locks
        return _keeping(alive, lib.cr_check(options, ears, ffi.new("uint32_t *")))

    with EngineProcess(_work(call, listener), failure=HostError, listener=listener) as engine:
        engine.finish()
        return engine.obstacles


def checkpoint(
    *,
    target: Target,
    image_fd: int,
    stop: bool,
    commit: Callable[[CheckpointResult], None],
    listener: Listener,
    capture: Callable[[], None] | None = None,
    rehearse: Callable[[], None] | None = None,
    over: Callable[[bool], None] | None = None,
    keep: tuple[int, ...] = (),
    scope: Scope = DEFAULT_SCOPE,
    fault: str | None = None,
) -> CheckpointResult:
    """Checkpoint @target into the directory @image_fd.

    @capture is called while all tasks stand, to take the files of that instant, those in tmpfs too;
    the engine collects the rest meanwhile. It must be quick. If it raises, the container runs on.
    @rehearse is called right before the tasks are stopped, which waits for it. @commit is called
    once all files of the engine are durable. With @stop the container stands still during that call:
    if it returns, the engine ends the container; if it raises, the container runs on and the
    exception is passed on. @over is called at the end, inside the engine's process, with whether it has
    ended the container: whoever wanted that may be dead. @keep lists descriptors that the engine holds until its end (a lock, say);
    the engine looks for obstacles first, before it stops anything.
    Raises CheckpointError, UnsupportedError and IsolationError (with obstacles), HostError,
    StoreError (disk full), EngineDied, Cancelled.
    """
    shared = mmap.mmap(-1, mmap.PAGESIZE)
    numbers = ffi.cast("struct cr_checkpoint_result *", ffi.from_buffer(shared))
    held = HeldLines()
    with Pipe() as notice, Pipe() as verdict:

        def call(ears: Any) -> Any:
            options, alive = _checkpoint_options(target=target, image_fd=image_fd, fault=fault)
            options.stop = stop
            options.deleted_file_limit = scope.deleted_file_limit
            options.drop_attached = scope.drop_attached
            options.ignore_outside_locks = scope.ignore_outside_locks
            options.files = capture is not None
            options.notice_fd = notice.write
            options.verdict_fd = verdict.read
            error = _keeping(alive, lib.cr_checkpoint(options, ears, numbers))
            if over:
                over(stop and not error)
            return error

        passed = (image_fd, notice.write, verdict.read, *keep)
        with (
            EngineProcess(
                _work(call, listener, held=held),
                failure=CheckpointError,
                listener=listener,
                keep=passed,
                untold=held.take,
            ) as engine,
            # Left before the engine is: without F or C it lets the container run on, and that must
            # have happened when the caller hears of a failure.
            contextlib.closing(verdict),
        ):
            notice.close_write()
            verdict.close_read()
            if capture:
                # The collector of garbage may take longer than everything else that happens then.
                with _no_garbage_collection():
                    _wait_for(engine, notice, b"P")
                    if rehearse:
                        rehearse()
                    _tell(verdict, b"R")
                    _wait_for(engine, notice, b"S")
                    _capture(capture, engine, verdict)
                    _tell(verdict, b"F")
            _wait_for(engine, notice, b"W")
            commit(_checkpoint_result(numbers))
            _tell(verdict, b"C")
            engine.finish()
    return _checkpoint_result(numbers)


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _capture(capture: Callable[[], None], engine: EngineProcess, verdict: Pipe) -> None:
    """Call @capture; when @engine failed meanwhile, tasks ran again, and its error is the reason."""
    try:
        capture()
    except LxcCrError:
        verdict.close()
        with contextlib.suppress(Cancelled):
            engine.finish()
        raise


def _wait_for(engine: EngineProcess, notice: Pipe, wanted: bytes) -> None:
    """Wait until @engine says @wanted; raises its error when it ends before."""
    if engine.wait_for(notice.read) != wanted:
        engine.finish()
        raise died(0)


def _tell(verdict: Pipe, what: bytes) -> None:
    """Answer an engine that waits; one that has ended tells why in its own way."""
    with contextlib.suppress(BrokenPipeError):
        os.write(verdict.write, what)


def image_check(*, image_fd: int, listener: Listener) -> None:
    """Read and check the image in directory @image_fd without touching anything else.

    Raises ImageError when the image is damaged or newer than this engine.
    """
    work = _work(lambda ears: lib.cr_image_check(image_fd, ears), listener)
    with EngineProcess(work, failure=ImageError, listener=listener, keep=(image_fd,)) as engine:
        engine.finish()


class Restart:
    """A restart under way, in this order: `wait_ready()`, start the runtime, `finish()`.

    @request_fd and @reply_fd are the two fifos of the meeting place; @timeout, in seconds, is for
    the runtime's hook to come there, once it was started, and its init to be executed; @lease favours the holders or the
    breakers of leases, @time_policy is one of clocks.POLICIES. Three functions are called inside the
    engine's process: @seized with the pid of the init that is about to be taken over, which is not if
    that raises, @taken_over with the same when the container stands as the runtime has made it, and
    @released as soon as all tasks run. @keep lists descriptors that the engine holds until its end (a
    lock, say).
    Leaving the `with` block early calls the engine off.
    """

    def __init__(
        self,
        *,
        image_fd: int,
        request_fd: int,
        reply_fd: int,
        cgroup_hint: str | None,
        timeout: float,
        lease: LeasePolicy = REMAINING,
        time_policy: int = 0,
        listener: Listener,
        seized: Callable[[int], None],
        taken_over: Callable[[int], None],
        released: Callable[[], None],
        keep: tuple[int, ...] = (),
        fault: str | None = None,
    ) -> None:
        shared = mmap.mmap(-1, mmap.PAGESIZE)
        self._numbers = ffi.cast("struct cr_restart_result *", ffi.from_buffer(shared))
        self._shared = shared
        self._supervisor = Pipe()
        self._ready = Pipe()

        def call(ears: Any) -> Any:
            options = ffi.new("struct cr_restart_options *")
            alive = [_text(cgroup_hint), _text(fault)]
            options.cgroup_hint, options.fault = alive
            options.image_fd = image_fd
            options.request_fd = request_fd
            options.reply_fd = reply_fd
            options.supervisor_fd = self._supervisor.read
            options.ready_fd = self._ready.write
            options.timeout = int(timeout * 1e9)
            options.lease_policy = lease.number
            options.lease_extra = lease.extra
            choices = [(number, one.number, one.extra) for number, one in lease.choices]
            alive.append(ffi.new("struct cr_lease_choice[]", choices))
            options.lease_choices = alive[-1]
            options.lease_choices_count = len(choices)
            options.time_policy = time_policy
            error = _keeping(alive, lib.cr_restart(options, ears, self._numbers))
            if not error:
                released()
            return error

        ours = (self._supervisor.read, self._ready.write)
        self._engine = EngineProcess(
            _work(call, listener, seized=seized, taken_over=taken_over),
            failure=RestartError,
            listener=listener,
            keep=(image_fd, request_fd, reply_fd, *ours, *keep),
        )
        self._supervisor.close_read()
        self._ready.close_write()

    def __enter__(self) -> Restart:
        return self

    def __exit__(self, *_: object) -> None:
        self.cancel()
        self._engine.__exit__()
        self._ready.close()

    def wait_ready(self) -> None:
        """Return when the image stands in memory and the runtime may start."""
        if self._engine.wait_for(self._ready.read) != b"R":
            self._engine.finish()
            raise died(0)

    def finish(self, *, starter: Starter) -> RestartResult:
        """Wait for the engine's end while @starter starts the container.

        A start that fails before the engine has met its init is passed on as starter.failure().
        Raises RestartError, UnsupportedError, ImageError, HostError, EngineDied, Cancelled.
        """
        with contextlib.suppress(BrokenPipeError):
            os.write(self._supervisor.write, b"S")
        if not self._engine.ended_before(starter.pidfd) and starter.wait() != 0:
            self.cancel()
            # When the engine failed first, the failed start is only the consequence.
            with contextlib.suppress(Cancelled):
                self._engine.finish()
            raise starter.failure()
        self._engine.finish()
        numbers = self._numbers
        return RestartResult(*(int(getattr(numbers, name)) for name in RestartResult._fields))

    def cancel(self) -> None:
        """Call the engine off: it undoes what it has begun."""
        self._supervisor.close()


class _Ears(NamedTuple):
    """What the callbacks below find behind their context."""

    emit: Emit
    seized: Callable[[int], None] | None
    taken_over: Callable[[int], None] | None
    failures: list[LxcCrError]


def _work(
    call: Callable[[Any], Any],
    listener: Listener,
    *,
    held: HeldLines | None = None,
    seized: Callable[[int], None] | None = None,
    taken_over: Callable[[int], None] | None = None,
) -> Work:
    """Wrap @call, which gets a struct cr_listener and returns a struct cr_error, for the child."""
    lowest_level = listener.lowest_level

    def work(emit: Emit) -> dict[str, Any] | None:
        failures: list[LxcCrError] = []
        handle = ffi.new_handle(_Ears(emit, seized, taken_over, failures))
        ears = ffi.new("struct cr_listener *")
        ears.context = handle
        ears.lowest_level = lowest_level // 10 - 1
        ears.held = held.lines if held else ffi.NULL
        ears.log = lib.engine_log
        ears.progress = lib.engine_progress
        ears.obstacle = lib.engine_obstacle
        ears.seized = lib.engine_seized
        ears.taken_over = lib.engine_taken_over
        error = _keeping([handle], call(ears))
        # The process ends now, so nobody frees the error.
        if error and failures:
            return _failure(failures[0])
        return _error(error) if error else None

    return work


def _names(name: Callable[[int], Any]) -> list[str]:
    names: list[str] = []
    while text := name(len(names)):
        names.append(_string(text))
    return names


def _checkpoint_options(
    *, target: Target, image_fd: int, fault: str | None
) -> tuple[Any, list[Any]]:
    """A struct cr_checkpoint_options, and what must be kept alive as long as it is used."""
    options = ffi.new("struct cr_checkpoint_options *")
    alive = [_text(target.cgroup), _text(target.freezer), _text(fault)]
    options.cgroup, options.freezer, options.fault = alive
    options.init_pid = target.init_pid
    options.freezer_is_v2 = target.freezer_is_v2
    options.image_fd = image_fd
    options.notice_fd = -1
    options.verdict_fd = -1
    return options, alive


def _checkpoint_result(numbers: Any) -> CheckpointResult:
    clocks = Clocks(*(int(getattr(numbers.clocks, name)) for name in Clocks._fields))
    rest = (int(getattr(numbers, name)) for name in CheckpointResult._fields[1:])
    return CheckpointResult(clocks, *rest)


def _keeping(_alive: list[Any], error: Any) -> Any:
    """@error; taking @_alive as an argument kept that memory until the call had returned."""
    return error


def _text(text: str | None) -> Any:
    return ffi.NULL if text is None else ffi.new("char[]", os.fsencode(text))


def _string(text: Any) -> str:
    return str(ffi.string(text).decode(errors="surrogateescape"))


def _error(error: Any) -> dict[str, Any]:
    """A struct cr_error as the dictionary that process.py understands."""
    names = ffi.typeof("enum cr_code").elements
    members = {name: getattr(error, name) for name in ("comm", "object", "message", "remedy")}
    return {
        "code": names.get(error.code, str(error.code)),
        "errnum": error.errnum,
        "errno_name": errno.errorcode.get(error.errnum),
        "pid": error.pid,
        **{name: _string(text) for name, text in members.items() if text},
    }


def _failure(error: LxcCrError) -> dict[str, Any]:
    """An exception of a function of ours that the engine has called, in the same form."""
    codes = {ImageError: "CR_IMAGE", HostError: "CR_HOST", UnsupportedError: "CR_UNSUPPORTED"}
    found = {
        "code": codes.get(type(error), "CR_SYSTEM"),
        "errnum": error.errno,
        "pid": error.pid,
        "message": str(error),
    }
    return {**found, "remedy": error.hint} if error.hint else found


@ffi.def_extern()  # type: ignore[untyped-decorator]
def engine_log(context: Any, level: int, text: Any) -> None:
    """Log line of the engine; its levels are Python's: (level + 1) * 10."""
    emit = ffi.from_handle(context).emit
    emit({"event": "log", "level": (level + 1) * 10, "text": _string(text)})


@ffi.def_extern()  # type: ignore[untyped-decorator]
def engine_progress(context: Any, stage: Any, done: int, total: int) -> None:
    """How far a stage of the engine has come."""
    emit = ffi.from_handle(context).emit
    emit({"event": "progress", "stage": _string(stage), "done": done, "total": total})


@ffi.def_extern()  # type: ignore[untyped-decorator]
def engine_obstacle(context: Any, error: Any) -> None:
    """One thing that stands in the way of a checkpoint."""
    emit = ffi.from_handle(context).emit
    emit({"event": "obstacle", **_error(error)})


@ffi.def_extern(error=-1)  # type: ignore[untyped-decorator]
def engine_seized(context: Any, init_pid: int) -> int:
    """A restart is about to take over this process; -1, also after an exception, calls it off."""
    seized = ffi.from_handle(context).seized
    if seized:
        seized(init_pid)
    return 0


@ffi.def_extern(error=-1)  # type: ignore[untyped-decorator]
def engine_taken_over(context: Any, init_pid: int) -> int:
    """The container stands, and nothing in it runs yet; -1, also after an exception, gives up."""
    ears = ffi.from_handle(context)
    try:
        if ears.taken_over:
            ears.taken_over(init_pid)
    except LxcCrError as error:
        ears.failures.append(error)
        return -1
    return 0
