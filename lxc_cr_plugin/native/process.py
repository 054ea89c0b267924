# SPDX-License-Identifier: LGPL-2.1-or-later
"""The engine's process: started by fork, heard over a pipe of JSON lines, always reaped.

Nothing here knows the C side; what runs in the child is a function that gets `emit` and returns
the error as a dictionary, or None.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from ..errors import (
    Cancelled,
    CheckpointError,
    EngineDied,
    HostError,
    ImageError,
    IsolationError,
    LxcCrError,
    Obstacle,
    StoreError,
    UnsupportedError,
)
from ..run import Child, Pipe, ending, fork, signal_name

Emit = Callable[[dict[str, Any]], None]
Work = Callable[[Emit], dict[str, Any] | None]

# How long an engine that is no longer wanted may take to put everything back, seconds.
PATIENCE = 10.0

# enum cr_code to the decision it asks for; what is not listed is the failure of the operation.
ERROR_CLASSES: dict[str, type[LxcCrError]] = {
    "CR_UNSUPPORTED": UnsupportedError,
    "CR_ISOLATION": IsolationError,
    "CR_IMAGE": ImageError,
    "CR_HOST": HostError,
    "CR_CANCELLED": Cancelled,
    "CR_MEMORY": HostError,
}

OBSTACLE_KINDS = {"CR_ISOLATION": "isolation", "CR_HOST": "host"}

DISK_FULL = ("ENOSPC", "EDQUOT")


class Listener(Protocol):
    """Who hears what the engine has to say; log.Reporter is one.

    Lines below `lowest_level` (of Python's logging) are not sent: the engine describes every system
    call that it makes in a task, and formatting thousands of them as JSON takes longer than those.
    """

    lowest_level: int

    def log(self, level: int, text: str) -> None:
        """Hear a line; @level is one of Python's logging levels."""

    def progress(self, stage: str, done: int, total: int) -> None:
        """Hear how far @stage has come, in bytes or items."""


class EngineProcess:
    """One call of the engine. Leaving the `with` block ends it, by force when it takes too long.

    `obstacles` are those it has met so far; its error carries them too. @untold gives the lines,
    level and text, that it has kept for later and did not come to tell.
    """

    def __init__(
        self,
        work: Work,
        *,
        failure: type[LxcCrError],
        listener: Listener,
        keep: Iterable[int] = (),
        untold: Callable[[], Iterable[tuple[int, str]]] = tuple,
    ) -> None:
        self._failure = failure
        self._listener = listener
        self._untold = untold
        self.obstacles: list[Obstacle] = []
        self._buffer = b""
        self._end: dict[str, Any] | None = None
        self._eof = False
        self._pipe = Pipe()
        fd = self._pipe.write
        self._child: Child = fork(lambda: _child(work, fd=fd), keep=(fd, *keep), session=True)
        self._pipe.close_write()

    def __enter__(self) -> EngineProcess:
        return self

    def __exit__(self, *_: object) -> None:
        deadline = time.monotonic() + PATIENCE
        while not self._eof and time.monotonic() < deadline:
            self._hear(timeout=deadline - time.monotonic())
        self._child.__exit__()
        self._pipe.close()
        for level, text in self._untold():
            self._listener.log(level, text)

    def wait_for(self, fd: int) -> bytes:
        """The byte that the engine writes to @fd, or b"" when it was closed or the engine ended."""
        while not self._eof:
            if fd in self._hear(fd):
                return os.read(fd, 1)
        return b""

    def ended_before(self, fd: int) -> bool:
        """Listen until the engine has ended (True) or @fd is readable (False)."""
        while not self._eof:
            if fd in self._hear(fd):
                return False
        return True

    def finish(self) -> None:
        """Listen until the engine has ended; raises its error, or EngineDied if it left none."""
        while not self._eof:
            self._hear()
        status = self._child.wait()
        if self._end is None:
            raise died(status)
        error = self._end.get("error")
        if error:
            raise to_exception(error, failure=self._failure, obstacles=tuple(self.obstacles))

    def _hear(self, fd: int | None = None, *, timeout: float | None = None) -> set[int]:
        """Wait for events or @fd (at most @timeout seconds), pass on events; the ready ones."""
        poll = select.poll()
        poll.register(self._pipe.read, select.POLLIN)
        if fd is not None:
            poll.register(fd, select.POLLIN)
        ready = {n for n, _ in poll.poll(None if timeout is None else max(0, timeout * 1000))}
        if self._pipe.read in ready:
            data = os.read(self._pipe.read, 1 << 16)
            self._eof = not data
            *lines, self._buffer = (self._buffer + data).split(b"\n")
            for line in lines:
                self._dispatch(json.loads(line))
        return ready

    def _dispatch(self, event: dict[str, Any]) -> None:
        match event["event"]:
            case "log":
                self._listener.log(event["level"], event["text"])
            case "progress":
                self._listener.progress(event["stage"], event["done"], event["total"])
            case "obstacle":
                self.obstacles.append(to_obstacle(event))
            case "end":
                self._end = event


def _child(work: Work, *, fd: int) -> int:
    """Run @work; its events and its end go to @fd."""

    def emit(event: dict[str, Any]) -> None:
        # A command that was killed no longer listens. That is no reason to leave a container
        # half way: the engine goes on and puts everything back.
        with contextlib.suppress(BrokenPipeError):
            data = json.dumps(event).encode() + b"\n"
            while data:
                data = data[os.write(fd, data) :]

    emit({"event": "end", "error": work(emit)})
    return 0


def died(status: int | None) -> EngineDied:
    """The exception for an engine that ended without a result; @status as Child.wait() gives it."""
    if status is not None and status < 0:
        if -status == signal.SIGKILL:
            hint = "Somebody killed it, or the kernel ran out of memory: look at dmesg"
            return EngineDied(f"The engine {ending(status)}", hint=hint)
        return EngineDied(
            f"The engine crashed with {signal_name(-status)}",
            hint="This is a bug: please report it with --debug",
        )
    return EngineDied(
        f"The engine ended without a result, exit code {status}",
        hint="This is a bug: please report it with --debug",
    )


def to_exception(
    error: dict[str, Any], *, failure: type[LxcCrError], obstacles: tuple[Obstacle, ...] = ()
) -> LxcCrError:
    """The exception for an error of the engine; @failure is the class for all ordinary ones."""
    chosen = ERROR_CLASSES.get(error["code"], failure)
    hint = error.get("remedy")
    if error["code"] == "CR_SYSTEM" and error.get("errno_name") in DISK_FULL:
        if failure is CheckpointError:
            chosen = StoreError
            hint = hint or "Remove images with `lxc-cr rm`, or give another --store"
        # Nothing is written to the store.
        hint = hint or "A file system of the container is full, or a limit of its own is reached"
    return chosen(
        error["message"],
        hint=hint,
        pid=error["pid"],
        comm=error.get("comm"),
        object=error.get("object"),
        errno=error["errnum"],
        obstacles=obstacles,
    )


def to_obstacle(error: dict[str, Any]) -> Obstacle:
    """The obstacle for an error that the engine met while looking."""
    return Obstacle(
        kind=OBSTACLE_KINDS.get(error["code"], "unsupported"),
        message=error["message"],
        hint=error.get("remedy"),
        pid=error["pid"],
        comm=error.get("comm"),
        object=error.get("object"),
    )
