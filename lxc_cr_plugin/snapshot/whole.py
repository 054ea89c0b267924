# SPDX-License-Identifier: LGPL-2.1-or-later
"""Everything about files that an image holds, taken together: root filesystem, tmpfs, mounts."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import manifest as manifests
from .. import mounts, remount
from ..errors import CheckpointError, HostError, UnsupportedError, os_errors
from ..fault import point
from ..store import Image, writing
from . import NONE, Capture, Storage, backend_for
from .capture import leases
from .volatile import VolatileCapture

if TYPE_CHECKING:
    from ..container import Container


class Captured(NamedTuple):
    """What the manifest says of files: the members `rootfs` and `mounts`."""

    rootfs: dict[str, Any] | None
    mounts: list[dict[str, Any]]


def refuse_unseen(rootfs: str, *, init_pid: int) -> None:
    """Raise UnsupportedError when the container's root is not the directory that we see at @rootfs.

    Its monitor may have a mount namespace of its own, and have mounted something there.
    """
    storage = Storage.parse(rootfs)
    if len(storage.paths) > 1:
        return  # layers: what the container sees is none of them
    with os_errors(HostError, "Failed to look at the root directory of the container"):
        same = Path(f"/proc/{init_pid}/root/").samefile(storage.paths[0])
    if not same:
        raise UnsupportedError(
            f"The container's root directory is not what this host has at '{storage.paths[0]}'",
            hint="Mount it on the host before the container starts, and not in a mount namespace of "
            "LXC's monitor (lxc.monitor.unshare), or leave the files out with --files none",
            object="mount",
        )


def _refuse_other_mounts(changed: bool) -> None:
    if changed:
        raise CheckpointError(
            "Something was mounted or unmounted in the container during the checkpoint",
            hint="Try again",
        )


def _looking() -> AbstractContextManager[None]:
    return os_errors(CheckpointError, "Failed to look at the container's files")


class WholeCapture:
    """The files of a running container; used as `Capture` is, @files: SNAPSHOT or NONE."""

    def __init__(
        self,
        container: Container,
        *,
        init_pid: int,
        files: str,
        staging: Path,
        images: list[Image],
    ) -> None:
        self._init_pid = init_pid
        self._configured = container.mount_places()
        self._rootfs: Capture | None = None
        with ExitStack() as undo:
            self._watch = undo.enter_context(closing(mounts.MountWatch(init_pid)))
            self._mounts = mounts.parse(self._watch.text)
            with writing("Failed to make room for files in the image"):
                (staging / manifests.CONTENTS).mkdir(mode=0o700)
            if files != NONE:
                backend = backend_for(container.rootfs())
                refuse_unseen(container.rootfs(), init_pid=init_pid)
                self._rootfs = backend.capture(staging=staging, images=images)
                undo.callback(self._rootfs.abandon)
            self._volatile = VolatileCapture(
                init_pid=init_pid, mounts=mounts.volatile(self._mounts), staging=staging
            )
            undo.callback(self._volatile.abandon)
            self._scope = undo.pop_all()

    def prepare(self, *, check_space: Callable[[int], None]) -> None:
        """Do beforehand what takes time, while the container runs."""
        with _looking():
            self._volatile.prepare()
            if self._rootfs:
                self._rootfs.prepare(check_space=check_space)

    def rehearse(self) -> None:
        """Find out early when there are other mounts than before; raises CheckpointError."""
        # What was mounted meanwhile, and is not any more, is of no concern.
        _refuse_other_mounts(self._watch.renew())
        self.look_at_leases()
        with _looking():
            self._volatile.rehearse()

    def look_at_leases(self) -> None:
        """The first to do so for a while waits for a grace period of RCU: up to 20 ms."""
        with _looking():
            leases()

    def freeze(self) -> None:
        """Take the files of this instant; all tasks stand."""
        _refuse_other_mounts(self._watch.changed())
        point("freeze")
        with _looking():
            if self._rootfs:
                self._rootfs.freeze()
            self._volatile.freeze()
        point("frozen")

    def finish(self, *, ended: bool) -> Captured:
        """Complete it. With @ended no task will run any more."""
        rootfs = self._rootfs.finish(ended=ended) if self._rootfs else None
        point("finished")
        return Captured(rootfs, self._describe(self._volatile.finish()))

    def abandon(self) -> None:
        """Close what is open."""
        self._scope.close()

    def _describe(self, views: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
        inside = {m.id for m in mounts.made_inside(self._mounts, configured=self._configured)}
        sources = {m.id for m in mounts.from_host(self._mounts, configured=self._configured)}
        found = []
        for mount in self._mounts:
            entry = remount.describe(mount, inside=mount.id in inside)
            if mount.place in views and mount.type == "tmpfs":
                # Of several at one place the one that is seen was read.
                entry |= views[mount.place]
            if mount.id in sources - inside:
                entry["identity"] = mounts.identity(mount, init_pid=self._init_pid)
            found.append(entry)
        return found
