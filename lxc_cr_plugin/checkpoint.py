# SPDX-License-Identifier: LGPL-2.1-or-later
"""A checkpoint, step by step: `checkpoint()` is the contents page.

While the container stands still the engine does most of the work. Python only calls it to take files, and
looks whether the network has changed, for less time than the engine needs for the rest; with --stop it
stands until the image has its name.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, NamedTuple

from . import __version__, check, manifest, native, network, pending
from .container import STOPPED, Container
from .errors import CheckpointError, ContainerError, LxcCrError
from .fault import point
from .freezer import memory_use
from .image import required_kinds
from .journal import CHECKPOINT, Entry, Journal, Journals, entry_of_this_process
from .log import Reporter, human_size, human_time
from .manifest import Manifest
from .native import CheckpointResult
from .run import signals_ignored
from .snapshot.whole import Captured, WholeCapture
from .store import DEFAULT_TAG, Image, Reference, Staging, Store, writing

# What an image holds besides memory, for the look at the free space: records, page tables. Bytes.
RECORDS_ESTIMATE = 16 << 20

# How long LXC may take to see that its container has ended, seconds.
STOP_TIMEOUT = 30.0


class Checkpoint(NamedTuple):
    """What was made."""

    image: Image
    numbers: CheckpointResult

    def as_json(self) -> dict[str, Any]:
        """For --json; times in nanoseconds, sizes in bytes."""
        return {
            "image": self.image.reference(),
            "digest": f"sha256:{self.image.digest}",
            "path": str(self.image.path),
            "buffered": self.image.buffered,
            "size": self.image.room(),
            "rootfs": self.image.manifest().rootfs,
            **{k: v for k, v in self.numbers._asdict().items() if k != "clocks"},
        }

    def summary(self, *, stopped: bool) -> str:
        """For people."""
        n = self.numbers
        stood = "ended with the checkpoint" if stopped else f"stood {human_time(n.downtime)}"
        return (
            f"Checkpoint {self.image.reference()}: {n.processes} processes, {n.threads} threads, "
            f"{stood}\n"
            f"  {human_size(self.image.room())} in {self.image.path}"
            + self._files()
            + (" (in memory: keep it with `lxc-cr flush`)" if self.image.buffered else "")
        )

    def _files(self) -> str:
        manifest = self.image.manifest()
        volatile = sum(mount.get("stood", 0) for mount in manifest.mounts)
        told = [f"tmpfs {human_time(volatile)}"] if volatile else []
        text = ""
        if manifest.rootfs:
            text = f", {manifest.rootfs['entries']} files"
            told.insert(0, f"{manifest.rootfs['backend']} {human_time(manifest.rootfs['stood'])}")
        return text + (f" (of the stop: {', '.join(told)})" if told else "")


def checkpoint(
    container: Container,
    *,
    reference: Reference,
    stop: bool,
    buffered: bool,
    files: str,
    store: Store,
    journals: Journals,
    report: Reporter,
    resume: bool = False,
    rollback: bool = False,
    scope: native.Scope = native.DEFAULT_SCOPE,
    fault: str | None = None,
) -> Checkpoint:
    """Checkpoint a running container into @store under the name @reference.

    With @stop the container ends at the instant of the image, else it runs on. If anything raises,
    it runs on and there is no image, unless the message says otherwise. @buffered leaves the image
    in memory. @scope says what may be in it, and what is left out. @files is snapshot.SNAPSHOT or
    NONE. With @resume (with @stop, and hooks) the next start resumes; a @rollback (with @stop) starts it
    again itself, or the next command does.
    """
    with ExitStack() as undo:
        locked = journals.locked(container=container.name, lxcpath=container.lxcpath)
        lock = undo.enter_context(locked)
        subject = check.examine(container)
        # The engine looks for everything else, as `lxc-cr check` does, before it stops anybody.
        check.refuse_early(container, subject, scope=scope, report=report)

        with report.step("network", "Look at the network"):
            net = watch_network(container, subject, report=report, undo=undo)
        staging = make_room(subject, store, buffered=buffered, report=report, undo=undo)
        with report.step("files", "Copy files that no earlier image has"):
            taken = take_files(container, subject, files, staging=staging, store=store, undo=undo)
        with report.step("journal", "Write down what is about to happen"):
            journal = undo.enter_context(journals.written(entry_for(container, subject)))

        committed: list[Image] = []

        def commit(numbers: CheckpointResult) -> None:
            with report.step("manifest", "Hash the files and write the manifest"):
                with writing("Failed to complete the files of the image"):
                    captured = taken.finish(ended=stop)
                if net:
                    net.write(staging.path)
                write_manifest(container, staging, subject.target, numbers, captured=captured)
            # Nothing may come between the name of the image and the end of the container.
            undo.enter_context(signals_ignored())
            with report.step("commit", f"Rename the image to {reference}"):
                tag = reference.tag or DEFAULT_TAG
                image = store.commit(staging, container=reference.container, tag=tag)
                committed.append(image)
            if stop:
                wanted = image if resume or rollback else None
                before_end(container, subject, journals, journal, wanted, report, rollback=rollback)

        with report.step("engine", f"Checkpoint process {subject.target.init_pid} and all below"):
            try:
                numbers = native.checkpoint(
                    target=subject.target,
                    image_fd=staging.fd,
                    stop=stop,
                    scope=scope,
                    commit=commit,
                    capture=together(net, taken),
                    rehearse=lambda: rehearse(taken, net),
                    over=lambda ended: journal.over(ended=ended),
                    listener=report,
                    keep=(lock,),
                    fault=fault,
                )
            except LxcCrError as error:
                explain(container, error, committed=committed)
                raise
        if stop:
            with report.step("stopped", "Wait until LXC has cleaned up"):
                wait_until_stopped(container)
        return Checkpoint(committed[0], numbers)


def entry_for(container: Container, subject: check.Subject) -> Entry:
    """What the journal says about a checkpoint of @container."""
    return entry_of_this_process(
        operation=CHECKPOINT,
        container=container.name,
        lxcpath=container.lxcpath,
        freezer=subject.cgroups.freezer,
    )


def before_end(
    container: Container,
    subject: check.Subject,
    journals: Journals,
    journal: Journal,
    resume: Image | None,
    report: Reporter,
    *,
    rollback: bool = False,
) -> None:
    """Tell the hooks of @container, if it has them, that it is we who end it.

    With @resume the next start is to go on from that image, and a @rollback makes it; the journal takes
    that back if the container does not end. Without, what was pending is of before this end, and forgotten.
    """
    if resume is None and pending.clear(container.directory):
        report.warning(
            f"Container '{container.name}' was to resume from an older image at its next start; "
            f"that is forgotten (`lxc-cr pending {container.name} REF` says it again)"
        )
    init = subject.target.init_pid
    announcements = [journals.announcement(init)] if container.resumes() else []
    marks = [pending.mark_of(container.directory)] if resume else []
    if not announcements and not marks:
        return
    with report.step("pending", "Tell hooks and the next start about this end"):
        journal.ends(init, promises=[*announcements, *marks])
        for announcement in announcements:
            announcement.touch(mode=0o600)
        if resume:
            pending.set_pending(container.directory, resume, rollback=rollback)
    point("promised")


def refuse_without_hooks(container: Container) -> None:
    """Raise ContainerError when a plain start of @container would not resume it."""
    if not container.resumes():
        raise ContainerError(
            f"Container '{container.name}' lacks the hooks that resume it at its start",
            hint=f"`lxc-cr stanza >/etc/lxc/lxc-cr.conf`, and write "
            f"`lxc.include = /etc/lxc/lxc-cr.conf` into {container.directory}/config",
        )


def make_room(
    subject: check.Subject, store: Store, *, buffered: bool, report: Reporter, undo: ExitStack
) -> Staging:
    """A staging directory, where the image will fit."""
    with report.step("space", "Look whether the image will fit"):
        need = memory_use(subject.cgroups) + RECORDS_ESTIMATE
        store.check_space(need, buffered=buffered)
    with report.step("staging", "Make a staging directory"):
        return undo.enter_context(store.staging(buffered=buffered))


def together(*parts: network.Watch | WholeCapture | None) -> Callable[[], None]:
    """A function that takes the state of all of @parts at one instant."""

    def freeze() -> None:
        for part in parts:
            if part:
                part.freeze()

    return freeze


def rehearse(taken: WholeCapture, net: network.Watch | None) -> None:
    """Do what is done under the stop once before it.

    Since the engine was forked off, the first store into each page of our memory takes a page fault;
    the kernel is faster at some things that it has just done; and what has changed meanwhile is of no
    concern then. The network comes last: what changes in it after that is read under the stop.
    """
    taken.rehearse()
    if net:
        net.rehearse()
    # Once more: a few milliseconds later it may take long again.
    taken.look_at_leases()


def watch_network(
    container: Container, subject: check.Subject, *, report: Reporter, undo: ExitStack
) -> network.Watch | None:
    """Begin to watch the container's network, unless it is the host's; raises UnsupportedError."""
    if container.shares_network():
        return None
    watch = network.Watch(subject.target.init_pid, container.nics())
    undo.callback(watch.close)
    if watch.uncounted:
        report.debug(f"Settings will be read again under the stop: {watch.uncounted}")
    check.refuse(container, watch.obstacles())
    return watch


def take_files(
    container: Container,
    subject: check.Subject,
    files: str,
    *,
    staging: Staging,
    store: Store,
    undo: ExitStack,
) -> WholeCapture:
    """Begin to take the container's files; those in tmpfs whatever @files says."""
    taken = WholeCapture(
        container,
        init_pid=subject.target.init_pid,
        files=files,
        staging=staging.path,
        images=store.newest(container.name),
    )
    undo.callback(taken.abandon)
    buffered = staging.shelf.buffered
    taken.prepare(check_space=lambda need: store.check_space(need, buffered=buffered))
    return taken


def explain(container: Container, error: LxcCrError, *, committed: list[Image]) -> None:
    """Raise in place of the engine's @error one that says more, if there is more to say."""
    if committed:
        raise CheckpointError(
            f"Image {committed[0].reference()} is complete, but the engine failed while it ended "
            f"the container: {error}",
            hint=f"`lxc-info {container.address}` shows whether it still runs",
        ) from error
    check.refuse(container, list(error.obstacles))


def write_manifest(
    container: Container,
    staging: Staging,
    target: native.Target,
    numbers: CheckpointResult,
    *,
    captured: Captured,
) -> None:
    """Write manifest.json for the files in @staging."""
    statistics = numbers._asdict()
    del statistics["clocks"]
    host = os.uname()
    requires = required_kinds(staging.path)
    if (staging.path / network.NAME).exists():
        requires += (network.FEATURE,)
    made = Manifest(
        engine=__version__,
        requires=requires,
        created=manifest.now(),
        container={
            "name": container.name,
            "lxcpath": container.lxcpath,
            "runtime": container.runtime,
            "init_pid": target.init_pid,
            "config": container.config_text(),
            "rootfs": container.rootfs(),
        },
        clocks=numbers.clocks._asdict(),
        host={
            "kernel": host.release,
            "machine": host.machine,
            "hostname": socket.gethostname(),
            "page_size": os.sysconf("SC_PAGE_SIZE"),
        },
        statistics=statistics,
        files=manifest.describe_files(staging.path),
        rootfs=captured.rootfs,
        mounts=tuple(captured.mounts),
    )
    with writing(f"Failed to write '{manifest.NAME}'"):
        (staging.path / manifest.NAME).write_bytes(made.encode())


def wait_until_stopped(container: Container) -> None:
    """Wait for the runtime to notice that its container has ended; CheckpointError if it does not.

    The image is complete by then.
    """
    if not container.wait_for(STOPPED, timeout=STOP_TIMEOUT):
        raise CheckpointError(
            f"The image is complete, but container '{container.name}' did not stop within "
            f"{STOP_TIMEOUT:.0f} s",
            hint=f"Stop it with `lxc-stop -k {container.address}`",
        )
