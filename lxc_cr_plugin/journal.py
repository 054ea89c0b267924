# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a command is about to do to a container, written down before it is touched.

A command can be killed at any moment. The next one finds the journal, sees from the lock that
nobody works on that container any more, and undoes what is left: a frozen cgroup, a restart that
was not confirmed, the meeting place. A lock is held by an open file, which the engine's process
inherits; so an engine that outlives its command still counts as somebody at work.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from . import snapshot, unfinished
from .errors import Cancelled, ContainerError, HostError, LxcCrError, os_message
from .freezer import Freezer
from .in_use import try_lock
from .log import Reporter
from .run import is_alive, parent_of, start_time, until
from .trusted import remove_durably

CHECKPOINT = "checkpoint"
RESTART = "restart"

# How long to wait for the engine of a command that was killed: it finishes what it began. Seconds.
ORPHAN_PATIENCE = 15.0

# For so long a lock may be held without a journal: by a command that looks what to repair, or one
# that has just begun. And so long an engine may hold up a command that has other things to do. Seconds.
MOMENT = 1.0


class Entry(NamedTuple):
    """One command under way.

    `freezer` is a directory that was not frozen when it began, `kept` the place where it keeps the
    previous state of the container's files; `init` is the init of the container that a checkpoint
    ends or a restart has taken over, `init_started` its start time; `monitor` is the process of the
    runtime that waits for that init. `promises` are files that hold for
    the next start: a checkpoint makes them before it ends the container, which is `ended` when it has,
    a restart fulfils them.
    """

    operation: str
    container: str
    lxcpath: str
    pid: int
    started: int
    freezer: str | None = None
    freezer_is_v2: bool = False
    meeting_place: str | None = None
    kept: str | None = None
    promises: Sequence[str] = ()
    init: int | None = None
    init_started: int = 0
    monitor: int | None = None
    monitor_started: int = 0
    confirmed: bool = False
    ended: bool = False


# Ends what an unconfirmed restart has started, and nothing else; False: nothing of it runs.
StopContainer = Callable[[Entry], bool]


class Journals:
    """The directory of journals and locks. Raises HostError when it is not safe to use."""

    def __init__(self, *, run_dir: Path, report: Reporter, stop_container: StopContainer) -> None:
        prepare_directory(run_dir)
        self._dir = run_dir
        self._report = report
        self._stop_container = stop_container
        self._held: dict[Path, int] = {}

    def repair(self) -> None:
        """Undo what commands that were killed have left; every command begins with this.

        Engines of those that were killed just now get a moment to finish, one for all; what they then
        still are at work with is left to a later command.
        """
        deadline = time.monotonic() + MOMENT
        for path in sorted(self._dir.glob("*.json")):
            with _open_lock(path) as fd:
                left = deadline - time.monotonic()
                if try_lock(fd) or (_is_orphaned(_read(path)) and _outlast(fd, timeout=left)):
                    self._repair(path)

    def repair_files(self, *, lxcpath: str, stopped: Callable[[str], bool]) -> None:
        """The same for files that were being brought back when the machine itself went down.

        @stopped says of a container, by its name, whether it is.
        """
        for note in sorted(Path(lxcpath).glob(f"*/{unfinished.NOTE}")):
            self.repair_files_of(note.parent, stopped=stopped)

    def repair_files_of(self, directory: Path, *, stopped: Callable[[str], bool]) -> None:
        """The same for the container that lives in @directory."""
        name = directory.name
        with _open_lock(self._path(container=name, lxcpath=str(directory.parent))) as fd:
            if not try_lock(fd):
                return
            try:
                done = unfinished.repair(directory, stopped=lambda: stopped(name))
            except Cancelled:
                raise
            except (LxcCrError, OSError) as error:
                hint = getattr(error, "hint", None)
                self._report.warning(
                    f"The files of container '{name}': {error}" + (f". {hint}" if hint else "")
                )
                return
            if done:
                self._report.info(f"Repaired container '{name}' after a restart cut off: {done}")

    def forget_restart(self, *, container: str, lxcpath: str) -> None:
        """Let somebody else repair the files of a restart, whose lock we hold."""
        path = self._path(container=container, lxcpath=lxcpath)
        entry = _read(path)
        if entry:
            _write(path, entry._replace(kept=None))

    @contextlib.contextmanager
    def locked(self, *, container: str, lxcpath: str) -> Iterator[int]:
        """Hold the container's lock; yields the descriptor that an engine has to inherit.

        Raises ContainerError when another command works on the container. The engine of a command
        that was killed gets a moment to finish. What is locked by the same object already stays so:
        an operation of several parts lets nobody in between.
        """
        path = self._path(container=container, lxcpath=lxcpath)
        if path in self._held:
            yield self._held[path]
            return
        with _open_lock(path) as fd:
            until(lambda: try_lock(fd) or _read(path) is not None, timeout=MOMENT)
            if not try_lock(fd):  # true again if we have it
                entry = _read(path)
                if not _is_orphaned(entry):
                    raise _busy(container, entry)
                self._report.info("Waiting for the engine of a killed command to finish")
                if not _outlast(fd, timeout=ORPHAN_PATIENCE):
                    raise _busy(container, entry)
            self._repair(path)
            with self._holding(path, fd):
                yield fd

    @contextlib.contextmanager
    def locked_if_free(self, *, container: str, lxcpath: str) -> Iterator[bool]:
        """The same without waiting; False, and not held, when another command works on it."""
        path = self._path(container=container, lxcpath=lxcpath)
        with _open_lock(path) as fd:
            free = try_lock(fd)
            if free:
                self._repair(path)
                with self._holding(path, fd):
                    yield True
            else:
                yield False

    @contextlib.contextmanager
    def _holding(self, path: Path, fd: int) -> Iterator[None]:
        self._held[path] = fd
        try:
            yield
        finally:
            del self._held[path]

    def announcement(self, init: int) -> Path:
        """A file that tells the hook post-stop of the container of @init that we have ended it."""
        return self._dir / f"end-of-{init}"

    def written(self, entry: Entry) -> Journal:
        """A journal of @entry for a `with` block; the container must be locked."""
        path = self._path(container=entry.container, lxcpath=entry.lxcpath)
        return Journal(path=path, entry=entry, stop_container=self._stop_container)

    def _path(self, *, container: str, lxcpath: str) -> Path:
        """The journal of a container: readable, unique and short."""
        digest = hashlib.sha256(os.fsencode(f"{lxcpath}/{container}")).hexdigest()[:16]
        return self._dir / f"{quote(container, safe='')[:100]}-{digest}.json"

    def _repair(self, path: Path) -> None:
        """Undo what the journal at @path describes, whose lock we hold."""
        entry = _read(path)
        if entry:
            try:
                done = undo(entry, stop_container=self._stop_container)
            except Cancelled:
                raise
            except (LxcCrError, OSError) as error:
                self._report.warning(f"Failed to repair container '{entry.container}': {error}")
                return
            self._report.info(
                f"Repaired container '{entry.container}' after a killed {entry.operation}: "
                + (", ".join(done) or "nothing was left")
            )
        path.unlink(missing_ok=True)


class Journal:
    """The journal of one command: written at the start of a `with` block, undone at its end."""

    def __init__(self, *, path: Path, entry: Entry, stop_container: StopContainer) -> None:
        self._path = path
        self._entry = entry
        self._stop_container = stop_container

    def __enter__(self) -> Journal:
        _write(self._path, self._entry)
        return self

    def __exit__(self, *_: object) -> None:
        # Which init is ours was noted by the engine, in its own process.
        noted = _read(self._path) or self._entry
        entry = noted._replace(confirmed=self._entry.confirmed)
        undo(entry, stop_container=self._stop_container, certain=True)
        self._path.unlink(missing_ok=True)

    def seized(self, init: int) -> None:
        """Note which process a restart is about to take over as init: the engine calls this.

        Until then nothing runs that the restart could have to stop: the start that waits in its
        hook fails by itself when nobody takes over.
        """
        started, monitor = start_time(init), parent_of(init)
        if started is None or not monitor:
            raise ContainerError(f"Process {init}, the new init, has ended")
        self._entry = self._entry._replace(
            init=init,
            init_started=started,
            monitor=monitor,
            monitor_started=start_time(monitor) or 0,
        )
        _write(self._path, self._entry)

    def released(self) -> None:
        """Note, for the next command, that a restart is complete: the engine calls this.

        Should the command die before it has confirmed that, the container is good and stays.
        """
        _write(self._path, self._entry._replace(confirmed=True))
        if self._entry.kept:
            # Should that fail, the stamps of its files still keep anybody from setting them back.
            with contextlib.suppress(OSError):
                snapshot.confirm(Path(self._entry.kept))
        # Here too: the container runs from now on, and its next start must not go back.
        _forget(self._entry.promises)

    def confirm(self) -> None:
        """Note that a restart succeeded: from here on the container is not to be stopped."""
        self._entry = self._entry._replace(confirmed=True)
        _write(self._path, self._entry)

    def ends(self, init: int, *, promises: list[Path]) -> None:
        """Note that a checkpoint makes @promises, and then ends the container of @init."""
        self._entry = self._entry._replace(
            promises=[str(path) for path in promises],
            init=init,
            init_started=start_time(init) or 0,
        )
        _write(self._path, self._entry)

    def over(self, *, ended: bool) -> None:
        """Note whether a checkpoint that `ends` its container has done so: the engine calls this.

        Its command may be dead by then: promises for a container that runs on go at once.
        """
        entry = _read(self._path)  # written since the engine was forked off
        if entry and ended:
            _write(self._path, entry._replace(ended=True))
        elif entry and _is_void(entry, certain=True):
            _forget(entry.promises)


def prepare_directory(run_dir: Path) -> None:
    """Make @run_dir; raises HostError when it is not safe to use."""
    try:
        run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = run_dir.lstat()
    except OSError as error:
        raise HostError(f"Failed to make '{run_dir}': {os_message(error)}") from error
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise HostError(
            f"'{run_dir}' can be written by others than root",
            hint="Set run_dir in /etc/lxc-cr.toml to a directory of root alone",
        )


def entry_of_this_process(
    *,
    operation: str,
    container: str,
    lxcpath: str,
    freezer: Freezer | None = None,
    meeting_place: Path | None = None,
    kept: Path | None = None,
    promises: Sequence[Path] = (),
) -> Entry:
    """A journal entry for the command that runs in this process."""
    pid = os.getpid()
    return Entry(
        operation=operation,
        container=container,
        lxcpath=lxcpath,
        pid=pid,
        started=start_time(pid) or 0,
        freezer=str(freezer.path) if freezer else None,
        freezer_is_v2=bool(freezer and freezer.is_v2),
        meeting_place=str(meeting_place) if meeting_place else None,
        kept=str(kept) if kept else None,
        promises=[str(path) for path in promises],
    )


def undo(entry: Entry, *, stop_container: StopContainer, certain: bool = False) -> list[str]:
    """Undo what @entry describes, as far as there is anything; what was done, for the user.

    With @certain nobody else can have started the container since: files are brought back whatever has
    become of them. Else RestartError is raised when they were changed.
    """
    done = []
    if entry.freezer:
        freezer = Freezer(Path(entry.freezer), entry.freezer_is_v2)
        if freezer.frozen():
            freezer.thaw()
            done.append("thawed it")
    if entry.meeting_place and dismiss(Path(entry.meeting_place)):
        done.append("removed its meeting place")
    failed = entry.operation == RESTART and not entry.confirmed
    if failed and stop_container(entry):
        done.append("stopped it")
    if entry.kept:
        # After the container was stopped: nobody may run while its files are exchanged.
        confirmed = entry.confirmed if certain else entry.confirmed or None
        restored = snapshot.repair(Path(entry.kept), confirmed=confirmed)
        done += [restored] if restored else []
        unfinished.forget(Path(entry.lxcpath, entry.container))
    if _is_void(entry, certain=certain):
        _forget(entry.promises)
    return done


def dismiss(place: Path) -> bool:
    """Remove the meeting @place and tell a hook that waits there that nobody comes; False: it is gone.

    Else it gives up by itself only after seconds, in which the runtime waits for it. If the engine has
    answered and died before the hook came to read, the answer is lost.
    """
    # Out of the hook's sight first: it may wait in the opening of either fifo, and finds the other,
    # which it would wait for next, no more.
    leaving = place.with_name(place.name + ".leaving")
    with contextlib.suppress(FileNotFoundError):
        place.rename(leaving)
    if not leaving.exists():
        return False
    for fifo in leaving.iterdir():
        with contextlib.suppress(OSError):
            # Both ends: opening one alone waits for the other.
            fd = os.open(fifo, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                if fifo.name == "reply":
                    os.write(fd, b"abort\n")
            finally:
                os.close(fd)
    shutil.rmtree(leaving, ignore_errors=True)
    return True


def _is_void(entry: Entry, *, certain: bool) -> bool:
    """Whether promises do not hold any more: they are fulfilled, or what was to end has run on.

    Unless @certain it may have ended by itself since, after days that a promise must not take back.
    """
    if entry.operation == RESTART:
        return entry.confirmed
    if entry.init is None or entry.ended:
        return False
    return not certain or is_alive(entry.init, started=entry.init_started)


def _forget(promises: Sequence[str]) -> None:
    for path in promises:
        remove_durably(Path(path))


@contextlib.contextmanager
def _open_lock(journal: Path) -> Iterator[int]:
    fd = os.open(journal.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield fd
    finally:
        os.close(fd)


def _is_orphaned(entry: Entry | None) -> bool:
    """Whether the command that wrote @entry is dead: its engine, if anybody, is at work."""
    return entry is not None and not is_alive(entry.pid, started=entry.started)


def _outlast(fd: int, *, timeout: float) -> bool:
    """Lock @fd as soon as an engine has let go of it; False: it has not within @timeout seconds."""
    return until(lambda: try_lock(fd), timeout=timeout)


def _busy(container: str, entry: Entry | None) -> ContainerError:
    who = f"the {entry.operation} of process {entry.pid}" if entry else "another lxc-cr"
    return ContainerError(
        f"Container '{container}' is being worked on by {who}", hint="Wait until it has finished"
    )


def _read(path: Path) -> Entry | None:
    try:
        return Entry(**json.loads(path.read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _write(path: Path, entry: Entry) -> None:
    # No fsync: a journal need not survive the machine, and /run is a tmpfs.
    new = path.with_suffix(".new")
    new.write_text(json.dumps(entry._asdict()))
    new.rename(path)
