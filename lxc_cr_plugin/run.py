# SPDX-License-Identifier: LGPL-2.1-or-later
"""Processes: the only module that forks or executes.

A child gets the descriptors it is told to keep and no others. That matters more than tidiness:
whether an end of file arrives on a pipe tells engine, hook and command who of them is still alive.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NoReturn, Self

from .early import interrupted
from .errors import Cancelled


def close_once(owner: object, name: str) -> None:
    """Close the descriptor that @owner has as @name, which becomes -1; one that is -1 was closed before.

    It is forgotten first: right behind the call a signal may end us, and whoever cleans up then must not
    close it again.
    """
    fd = getattr(owner, name)
    setattr(owner, name, -1)
    if fd >= 0:
        os.close(fd)


class Child:
    """A forked process, ended and reaped at the latest when its `with` block is left."""

    def __init__(self, *, pid: int, pidfd: int) -> None:
        self.pid = pid
        self.pidfd = pidfd
        self._status: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is None:
            self.kill()
            self.wait()
        close_once(self, "pidfd")

    def kill(self) -> None:
        """Send SIGKILL; a process that has ended already is fine."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def wait(self, *, timeout: float | None = None) -> int | None:
        """Exit code, or minus the number of the signal; None when @timeout (seconds) ran out."""
        if self._status is None:
            if not readable(self.pidfd, timeout=timeout):
                return None
            self._status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self._status


class Pipe:
    """Both ends of a pipe; closing an end twice is fine."""

    def __init__(self) -> None:
        self.read, self.write = os.pipe2(os.O_CLOEXEC)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close what is still open."""
        self.close_read()
        self.close_write()

    def close_read(self) -> None:
        """Close the reading end: a writer gets SIGPIPE or EPIPE."""
        close_once(self, "read")

    def close_write(self) -> None:
        """Close the writing end: a reader gets the end of the file."""
        close_once(self, "write")


def fork(work: Callable[[], int], *, keep: Iterable[int] = (), session: bool = False) -> Child:
    """Run @work in a child process; its return value is the exit code.

    Descriptors 0 to 2 and those of @keep stay open in the child, all others are closed. With
    @session it leaves the terminal's process group, so that Ctrl-C and Ctrl-Z reach the parent
    alone. Exceptions of @work end the child with code 1 and a traceback on its stderr.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    keep_open = sorted({0, 1, 2, *keep})
    pid = os.fork()
    if pid == 0:
        _run_child(work, keep_open=keep_open, session=session)
    return Child(pid=pid, pidfd=os.pidfd_open(pid))


def _run_child(work: Callable[[], int], *, keep_open: list[int], session: bool) -> NoReturn:
    code = 1
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN if session else signal.SIG_DFL)
        if session:
            os.setsid()
        close_others(keep_open)
        code = work()
    except BaseException:
        import traceback

        with contextlib.suppress(OSError):
            os.write(2, traceback.format_exc().encode(errors="backslashreplace"))
    finally:
        # No destructor and no atexit handler of the parent may run twice.
        os._exit(code)


def hold_standard_descriptors() -> None:
    """Have descriptors 0 to 2 lead to /dev/null where whoever started us has closed them.

    Pipes and files of ours would get these numbers, and what we print with them.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
            # Programs that we execute need it as much; what Python opens is closed for them.
            os.set_inheritable(fd, True)
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115


def close_others(keep_open: list[int]) -> None:
    """Close every descriptor that is not in the ascending list @keep_open."""
    low = 0
    for fd in keep_open:
        # An empty range from 0 on closes everything: Python passes its end as (unsigned) -1.
        if low < fd:
            os.closerange(low, fd)
        low = fd + 1
    # The kernel's limit may be far higher; closerange() uses close_range(2), which is one call.
    os.closerange(low, 2**31 - 1)


def readable(fd: int, *, timeout: float | None) -> bool:
    """Wait until @fd can be read or has ended; False when @timeout (seconds) ran out."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(None if timeout is None else max(0, int(timeout * 1000))))


def start_time(pid: int) -> int | None:
    """When process @pid was started, in clock ticks since boot; None when there is none.

    Together with the pid it names a process for ever, field 22 of /proc/PID/stat.
    """
    fields = _stat(pid)
    return int(fields[19]) if fields else None


def is_alive(pid: int, *, started: int) -> bool:
    """Whether the process that start_time() told apart is there, and no zombie."""
    fields = _stat(pid)
    return fields is not None and int(fields[19]) == started and fields[0] not in (b"Z", b"X")


def is_reapable(pid: int, *, started: int) -> bool:
    """Whether the process that start_time() told apart is a zombie that its parent could wait for.

    It cannot as long as other threads of it have not ended, or a tracer has not waited for it.
    """
    fields = _stat(pid)
    if fields is None or int(fields[19]) != started or fields[0] != b"Z":
        return False
    try:
        status = Path(f"/proc/{pid}/status").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return int(fields[17]) == 1 and b"\nTracerPid:\t0\n" in status


def parent_of(pid: int) -> int | None:
    """The pid of the parent of process @pid; None when there is no such process."""
    fields = _stat(pid)
    return int(fields[1]) if fields else None


def _stat(pid: int) -> list[bytes] | None:
    """Fields 3 and following of /proc/PID/stat; None when there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return stat.rpartition(b")")[2].split()


def kill_process(pid: int, *, started: int) -> bool:
    """Kill the process that start_time() told apart; False when that one has ended."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        # Asked now that the pidfd holds the process: a pid may have been given to another one.
        if start_time(pid) != started:
            return False
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        return False
    finally:
        os.close(pidfd)
    return True


def ending(status: int) -> str:
    """How a process has ended whose @status Child.wait() or subprocess gave: the rest of a sentence."""
    return f"was killed by {signal_name(-status)}" if status < 0 else f"ended with code {status}"


def signal_name(number: int) -> str:
    """SIGTERM for 15; what has no name is "signal 34"."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def until(condition: Callable[[], bool], *, timeout: float, pause: float = 0.005) -> bool:
    """Ask @condition every @pause seconds; False when it did not hold within @timeout seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
    return True


@contextlib.contextmanager
def signals_cancel() -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP raise Cancelled once; while that is cleaned up they are ignored.

    So is SIGINT afterwards, where a command has begun with early.py: what it had to do is done.
    """
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def cancel(number: int, _frame: object) -> None:
        for other in numbers:
            signal.signal(other, signal.SIG_IGN)
        raise Cancelled(f"Interrupted by {signal.Signals(number).name}")

    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        # Whoever started us with a signal ignored (nohup) meant it.
        if before[number] != signal.SIG_IGN:
            signal.signal(number, cancel)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if handler is interrupted else handler)


@contextlib.contextmanager
def signals_ignored() -> Iterator[None]:
    """Ignore the same signals where turning back would be worse than going on."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
