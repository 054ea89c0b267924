# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the commands share: settings, store, journals, and the calls that several of them make."""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from . import config
from .config import DROP, IGNORE, Settings
from .errors import Cancelled, ContainerError, HostError, LxcCrError, StoreError, cancelled
from .fault import FAULT_VARIABLE
from .lease import REMAINING, LeaseChoice, LeasePolicy
from .log import Reporter

if TYPE_CHECKING:
    from .checkpoint import Checkpoint
    from .container.lxc import LxcContainer
    from .journal import Entry, Journals
    from .native import Scope
    from .restore import Restarted
    from .store import Image, Reference, Store

# How long a killed init may take to end, with all its processes and memory, seconds.
END_TIMEOUT = 30.0

# How long LXC may take to reap an init that has ended, seconds.
REAP_TIMEOUT = 5.0


Item = TypeVar("Item")


class Session:
    """What every command works with, made when it is first needed."""

    def __init__(self, arguments: argparse.Namespace, report: Reporter) -> None:
        self.arguments = arguments
        self.report = report
        self._warned = False
        self.fault = os.environ.get(FAULT_VARIABLE)
        self.settings = self._load(None)

    @cached_property
    def policy(self) -> Settings:
        """The settings for the container that the command names: with those of its own file."""
        return self.policy_of(self.container().directory)

    def policy_of(self, directory: Path) -> Settings:
        """The same for the container that lives in @directory; raises UsageError."""
        return self._load(directory)

    def _load(self, container: Path | None) -> Settings:
        given = vars(self.arguments)
        return config.load(
            file=given.get("config"),
            container=container,
            store=given.get("store"),
            buffer_dir=given.get("buffer_dir"),
            lxcpath=given.get("lxcpath"),
        )

    @property
    def scope(self) -> Scope:
        """What of the container goes into an image."""
        from .native import Scope

        given = vars(self.arguments)
        attached = given.get("attached") or self.policy.attached
        outside_locks = given.get("outside_locks") or self.policy.outside_locks
        return Scope(
            deleted_file_limit=self.policy.deleted_file_limit << 20,
            drop_attached=attached == DROP,
            ignore_outside_locks=outside_locks == IGNORE,
        )

    def store(self) -> Store:
        """The image store, without what killed commands had begun to write."""
        from .store import Store

        store = Store(root=self.settings.store, buffer=self.settings.buffer_dir)
        if store.closed and not self._warned:
            self._warned = True
            self.report.warning(f"Buffered images are not looked at: {store.closed}")
        store.sweep()
        return store

    def journals(self, *, leave: str | None = None, finish: bool = True) -> Journals:
        """The journals, after what killed commands have left was repaired.

        That of container @leave is about to be started by this command itself. Without @finish none is
        started.
        """
        from .journal import Journals

        journals = Journals(
            run_dir=self.settings.run_dir, report=self.report, stop_container=stop_container
        )
        journals.repair()
        lxcpath = self.settings.lxcpath or default_lxcpath()
        if lxcpath:
            journals.repair_files(lxcpath=lxcpath, stopped=lambda name: is_stopped(name, lxcpath))
        if finish:
            self.finish_rollbacks(journals, leave=leave)
        return journals

    def finish_rollbacks(self, journals: Journals, *, leave: str | None = None) -> list[str]:
        """Let containers run again that killed rollbacks have ended; names of those that do not."""
        lxcpath = self.settings.lxcpath or default_lxcpath()
        names = [name for name in cut_off(lxcpath) if name != leave] if lxcpath else []
        return [name for name in names if not self.of(name=name)._finish_rollback(journals)]

    def _finish_rollback(self, journals: Journals) -> bool:
        """The same for the container that the command names."""
        from .rollback import finish
        from .snapshot import ROLLBACK

        return finish(
            self.container(),
            journals=journals,
            resolve=lambda reference: self.store().resolve(reference),
            restart=lambda image: self.start_from(image, files=ROLLBACK, journals=journals),
            report=self.report,
        )

    def of(self, **arguments: str) -> Session:
        """The same session with other arguments: for another container, say."""
        return Session(argparse.Namespace(**{**vars(self.arguments), **arguments}), self.report)

    def container(self) -> LxcContainer:
        """The container that the command names."""
        return open_container(self.arguments.name, self.settings.lxcpath)

    def existing(self, container: LxcContainer) -> LxcContainer:
        """@container, looked for before it is locked: nothing may be left of a name that was mistyped.

        Its lock would be, since a file that others may be about to lock cannot be removed safely.
        """
        from .container import refuse_undefined

        refuse_undefined(container)
        return container

    def is_pending(self, image: Image) -> bool:
        """Whether the next start of its container needs @image."""
        from .pending import pending

        wanted = pending(open_container(image.container, self.settings.lxcpath).directory)
        return wanted is not None and wanted.digest == image.digest

    def refuse_pending(self, image: Image) -> None:
        """Raise StoreError when the next start of its container needs @image."""
        if self.is_pending(image):
            raise StoreError(
                f"Container '{image.container}' resumes from {image.reference()} at its next start",
                hint=f"`lxc-cr pending {image.container} --clear` lets it start afresh",
            )

    def each(self, items: Iterable[Item], work: Callable[[Item], None]) -> int:
        """Do @work with each of @items: one that fails is reported, and leaves the others alone.

        Returns the exit code of the first that failed.
        """
        code = 0
        for item in items:
            try:
                work(item)
            except LxcCrError as error:
                if cancelled(error):
                    raise
                self.report.error(error)
                code = code or error.exit_code
        return code

    @contextlib.contextmanager
    def passing_over_used(self) -> Iterator[None]:
        """Let a `with` block that removes one image of many fail when a command is at work with it."""
        try:
            yield
        except StoreError as error:
            if error.errno != errno.EBUSY:
                raise
            self.report.warning(f"{error}: it stays")

    def make_image(
        self,
        reference: Reference,
        *,
        stop: bool,
        buffered: bool,
        files: str,
        resume: bool = False,
        rollback: bool = False,
        journals: Journals | None = None,
    ) -> Checkpoint:
        """Checkpoint the container that the command names; see checkpoint()."""
        from .checkpoint import checkpoint as run
        from .checkpoint import refuse_without_hooks

        if resume:
            refuse_without_hooks(self.container())
        container = self.existing(self.container())
        return run(
            container,
            reference=reference,
            stop=stop,
            buffered=buffered,
            scope=self.scope,
            files=files,
            resume=resume,
            rollback=rollback,
            store=self.store(),
            journals=journals or self.journals(),
            report=self.report,
            fault=self.fault,
        )

    def start_from(
        self,
        image: Image,
        *,
        files: str,
        full: bool = False,
        lease: LeasePolicy = REMAINING,
        lease_choices: Sequence[LeaseChoice] = (),
        time_policy: str | None = None,
        sources: Mapping[str, str | None] | None = None,
        container: LxcContainer | None = None,
        bridges: Mapping[str, str] | None = None,
        clone: bool = False,
        journals: Journals | None = None,
    ) -> Restarted:
        """Restart the container that the command names, or @container, which is the same one.

        @time_policy None is the configured one; @clone: the image may be another container's.
        """
        from .restore import restart as run

        container = self.existing(container or self.container())
        return run(
            container,
            image=image,
            journals=journals or self.journals(leave=container.name),
            run_dir=self.settings.run_dir,
            timeout=self.policy.restart_timeout,
            files=files,
            full=full,
            lease=lease.choosing(lease_choices, image),
            time_policy=time_policy or self.policy.time,
            sources={**self.policy.accepted_sources(), **(sources or {})},
            bridges=bridges or {},
            clone=clone,
            clone_network=self.policy.clone_network,
            report=self.report,
            fault=self.fault,
        )


def open_container(name: str, lxcpath: str | None) -> LxcContainer:
    """A container of LXC; HostError when Python's binding of LXC is not there."""
    try:
        from .container.lxc import LxcContainer
    except ImportError as error:
        raise HostError(
            f"Python's binding of LXC does not load: {error}",
            hint="Install it into the same Python: pip install lxc (needs lxc-dev)",
        ) from error
    return LxcContainer(name=name, lxcpath=lxcpath)


def default_lxcpath() -> str | None:
    """Where containers are when nobody says; None when LXC is not there, and no container either."""
    try:
        from .container.lxc import DEFAULT_PATH
    except ImportError:
        return None
    return DEFAULT_PATH


def cut_off(lxcpath: str) -> list[str]:
    """Names of containers that a rollback has ended or was about to, if it was killed."""
    from . import pending

    found = []
    for mark in sorted(Path(lxcpath).glob(f"*/{pending.MARK}")):
        # What no command could follow is reported by those who have to.
        try:
            said = pending.read(mark.parent)
        except Cancelled:
            raise
        except LxcCrError:
            continue
        if said and said.rollback:
            found.append(mark.parent.name)
    return found


def is_stopped(name: str, lxcpath: str) -> bool:
    """Whether nothing of the container @name runs."""
    from .container import STOPPED

    return open_container(name, lxcpath).state() == STOPPED


def stop_container(entry: Entry) -> bool:
    """End the container that a failed restart has left; False when it did not run.

    Only the init that the restart has taken over is ended: somebody else may have started the
    container before or since. Raises ContainerError when that one runs on files that the restart
    has exchanged, which cannot be brought back under it.
    """
    from .container import STOPPED, settle
    from .run import kill_process

    ended = entry.init is not None and kill_process(entry.init, started=entry.init_started)
    end_stuck_monitor(entry)
    container = open_container(entry.container, entry.lxcpath)
    settle(container, ended=entry.init)
    container.clean_up()
    if entry.kept and Path(entry.kept).exists() and container.state() != STOPPED:
        raise ContainerError(
            f"Container '{entry.container}' was started by somebody else, with files that a restart "
            "had exchanged",
            hint=f"`lxc-stop {container.address}`: the next lxc-cr brings its files back, or asks when "
            "they were changed since",
        )
    return ended


def end_stuck_monitor(entry: Entry) -> None:
    """End the process of LXC that should have seen the end of its init, and has not.

    Where the init dies before it has sent LXC what that waits for, LXC waits for ever: it holds the
    other end of its socket too. Nobody could ask it for the state of the container, or start that again.
    An init that is still ending, or that a debugger holds, is no fault of LXC's.
    """
    from .run import is_reapable, kill_process, start_time, until

    init, started, monitor = entry.init, entry.init_started, entry.monitor
    if init is None or monitor is None:
        return

    def reaped() -> bool:
        return start_time(init) != started

    def left() -> bool:
        return is_reapable(init, started=started)

    until(lambda: reaped() or left(), timeout=END_TIMEOUT)
    if left() and not until(reaped, timeout=REAP_TIMEOUT) and left():
        kill_process(monitor, started=entry.monitor_started)
