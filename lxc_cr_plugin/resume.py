# SPDX-License-Identifier: LGPL-2.1-or-later
"""A plain start of a container becomes a restart, when one is pending.

    LXC (lxc-start, lxc-autostart, ...)      hook pre-start             supervisor, engine
    monitor: pre-start hook ───────────────▶ fork ────────────────────▶ lock, files, load the image
                                             wait ◀──────────────────── ready
             network, namespaces, init ◀──── end
             start-host hook (hooks/lxc-start-host) ──────────────────▶ take over, build, release
             keeps a container that runs                                confirm, remove the mark

It is the restart of restore.py; only the start is not ours. The supervisor must outlive the hook,
whose output LXC reads to its end: it has a session of its own, and writes to a log beside the
container's configuration. LXC's monitor is not its parent and not its child. Each learns of the
other's death: the supervisor by a pidfd, LXC because nobody answers at the meeting place.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from . import pending, snapshot, unfinished
from .config import FRESH, Settings
from .container.starting import Monitor, StartingContainer
from .errors import Cancelled, LxcCrError, RestartError
from .journal import Entry, Journals
from .lease import LeasePolicy
from .restore import Restarted, restart
from .run import Pipe, fork, is_alive, kill_process, readable, until
from .session import Session, stop_container
from .store import Image

# What the supervisor says to the hook; nothing at all means that the start must fail.
READY, AFRESH = b"R", b"F"

# How long a killed init may take to end, seconds.
END_TIMEOUT = 10.0


def before_start(session: Session, directory: Path) -> int:
    """What the hook pre-start does: 0 lets the start of the container in @directory go on.

    Raises RestartError when it must fail.
    """
    if pending.mark_of(directory).exists():
        return resume(session, directory)

    def stop(entry: Entry) -> bool:
        ours = Path(entry.lxcpath, entry.container) == directory
        return end_init(entry) if ours else stop_container(entry)

    journals = Journals(
        run_dir=session.settings.run_dir, report=session.report, stop_container=stop
    )
    journals.repair()
    journals.repair_files_of(directory, stopped=lambda _: True)
    refuse_half(directory)
    return 0


def refuse_half(directory: Path) -> None:
    """Raise RestartError when a restart that was cut off has left the files neither old nor new."""
    kept = unfinished.noted(directory)
    if kept and snapshot.is_away(kept):
        raise RestartError(
            f"The files of container '{directory.name}' are neither old nor new: a restart was cut off",
            hint=f"`lxc-cr repair {directory.name} --undo` says what keeps them from going back",
        )


def end_init(entry: Entry) -> bool:
    """End what a failed restart has left, where LXC cannot be asked; False: nothing of it runs."""
    if entry.init is None or not kill_process(entry.init, started=entry.init_started):
        return False
    init, started = entry.init, entry.init_started
    until(lambda: not is_alive(init, started=started), timeout=END_TIMEOUT)
    return True


def resume(session: Session, directory: Path) -> int:
    """What it does when a restart is pending: 0 lets the start go on, to be taken over or afresh.

    @directory is where the container lives. Raises RestartError when the start must fail.
    """
    # The shell that LXC has started was replaced, twice, by what we are now.
    monitor = os.getppid()
    with Pipe() as word:
        log = os.open(
            directory / pending.LOG,
            os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC,
            0o600,
        )

        def work() -> int:
            for fd in (1, 2):
                os.dup2(log, fd)
            return supervise(session, directory, monitor=monitor, word=word.write)

        # Neither ended nor waited for: it lives until the container runs.
        fork(work, keep=(log, word.write), session=True)
        word.close_write()
        readable(word.read, timeout=None)
        if os.read(word.read, 1):
            return 0
        told = os.pread(log, 1 << 16, 0).decode(errors="replace").strip()
    raise RestartError(
        f"The pending restart of container '{directory.name}' failed: {told or 'its process was killed'}",
        hint=f"`lxc-cr pending {directory.name} --clear` lets it start afresh",
    )


def supervise(session: Session, directory: Path, *, monitor: int, word: int) -> int:
    """The process behind the hook."""
    with Monitor(monitor) as keeper:
        container = StartingContainer(
            name=directory.name,
            lxcpath=str(directory.parent),
            monitor=keeper,
            go_on=lambda: say(word, READY),
        )
        return Supervisor(session, container=container, word=word).run()


def say(word: int, what: bytes) -> None:
    """Tell the hook how the start goes on."""
    # Whoever has killed the hook has killed the start.
    with contextlib.suppress(BrokenPipeError):
        os.write(word, what)


class Supervisor:
    """The process that sees the restart through; @word is where the hook listens."""

    def __init__(self, session: Session, *, container: StartingContainer, word: int) -> None:
        self._session = session
        self._container = container
        self._word = word

    def run(self) -> int:
        """Restart the container from what its mark says; the exit code."""
        report = self._session.report
        policy = None
        try:
            policy = self._session.policy_of(self._container.directory)
            done = self._restart(policy)
        except LxcCrError as error:
            report.error(error)
            # A signal is no failure: the restart stays pending.
            if policy and policy.on_failure == FRESH and not isinstance(error, Cancelled):
                self._start_afresh()
            return error.exit_code
        if done:
            report.result(done.as_json(), text=done.summary(self._container.name))
        return 0

    def _restart(self, policy: Settings) -> Restarted | None:
        container, session = self._container, self._session
        journals = Journals(
            run_dir=session.settings.run_dir, report=session.report, stop_container=self._stop
        )
        # What was killed may have been the rest of a restart that is done: then nothing is pending.
        journals.repair()
        journals.repair_files_of(container.directory, stopped=lambda _: True)
        wanted = pending.pending(container.directory)
        if wanted is None:
            say(self._word, AFRESH)
            return None
        done = self._restart_from(session.store().resolve(wanted), journals, policy)
        # After a failure it stays and leads nowhere: this start, which may not have come so far yet,
        # has to fail. The next one removes it.
        (container.directory / pending.PLACE).unlink(missing_ok=True)
        return done

    def _restart_from(self, image: Image, journals: Journals, policy: Settings) -> Restarted:
        session = self._session
        return restart(
            self._container,
            image=image,
            journals=journals,
            run_dir=session.settings.run_dir,
            timeout=policy.restart_timeout,
            files=policy.restart_files,
            full=policy.verify == "full",
            time_policy=policy.time,
            lease=LeasePolicy.parse(policy.lease),
            sources=policy.accepted_sources(),
            clone_network=policy.clone_network,
            report=session.report,
            fault=session.fault,
        )

    def _stop(self, entry: Entry) -> bool:
        """End what a failed restart has left; LXC cannot be asked before it goes on."""
        container = self._container
        ours = (entry.container, entry.lxcpath) == (container.name, container.lxcpath)
        if not ours or container.begun:
            return stop_container(entry)
        return end_init(entry)

    def _start_afresh(self) -> None:
        """As the policy asks for. Everything of the restart is undone by now, files included."""
        container = self._container
        pending.clear(container.directory)
        self._session.report.warning(f"Container '{container.name}' starts afresh")
        if not container.begun:
            say(self._word, AFRESH)
        elif container.monitor.is_daemon:
            # The start has failed; nobody waits for it in the foreground, so another may follow.
            with container.start_afresh() as start:
                if start.wait() != 0:
                    self._session.report.error(start.failure())
