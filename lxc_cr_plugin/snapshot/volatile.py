# SPDX-License-Identifier: LGPL-2.1-or-later
"""The files in tmpfs of a container: they end with it, so they are always in the image.

    IMAGE/tmpfs-<n>.cbor     the view of one tmpfs, as rootfs.cbor is that of the root filesystem
    IMAGE/rootfs/<digest>    contents, beside those of the root filesystem

A tmpfs has no disk, and a store into a mapping never shows in a time: all of it is read under the
stop, by the engine's own code into memory (in_memory.py), and written into the image when the container
runs again. It is read and filled through a mount of our own that shows it without what is mounted in it.
"""

from __future__ import annotations

import os
import re
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import manifest as manifests
from ..errors import HostError, ImageError, UnsupportedError, os_errors
from ..inside import clone_mounts
from ..mounts import read as mounts_of
from ..native.tree_look import TreeLook
from ..native.tree_take import Arena
from . import capture, rollback, view
from .in_memory import MemoryCapture
from .source import Contents
from .tree import Tree

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..manifest import Manifest
    from ..mounts import Mount
    from ..store import Image

NAME = "tmpfs-{}.cbor"
VIEW = re.compile(r"tmpfs-[0-9]+\.cbor")

# What the files may grow by between the look at them and the stop, bytes.
SPARE = 1 << 30

# What of that is touched before: attributes, and what grows in an instant.
WARM_SPARE = 4 << 20


class VolatileCapture:
    """The tmpfs mounts of a container being taken, in the order of @mounts."""

    def __init__(self, *, init_pid: int, mounts: list[Mount], staging: Path) -> None:
        self._init_pid = init_pid
        self._mounts = mounts
        self._staging = staging
        self._scope = ExitStack()
        self._captures: list[capture.Capture] = []
        self._stood: list[int] = []

    def prepare(self) -> None:
        """Open them, while the container runs. Raises UnsupportedError when one is hidden."""
        try:
            fds = clone_mounts(self._init_pid, [(m.place, m.device) for m in self._mounts])
        except HostError as error:
            raise UnsupportedError(
                f"The files of a tmpfs cannot be read: {error}",
                hint="Unmount what covers it",
                object="mount",
            ) from error
        for fd in fds:
            self._scope.callback(os.close, fd)
        arena = self._arena_for(sum(map(_used, fds)))
        for number, (mount, fd) in enumerate(zip(self._mounts, fds, strict=True)):
            tree = self._scope.enter_context(Tree(Path(mount.place), fd=os.dup(fd)))
            target, prefix = self._staging / manifests.CONTENTS, f"tmpfs-{number}-"
            self._captures.append(
                MemoryCapture(tree, target=target, prefix=prefix, arena=arena)
                if arena
                else capture.Capture(
                    tree, target=target, known=capture.Known({}, {}), prefix=prefix
                )
            )

    def _arena_for(self, need: int) -> Arena | None:
        """Memory for files of so many bytes; None when there is too little."""
        # An image in memory needs as much again, when they are written to it.
        copies = 2 if is_in_memory(self._staging) else 1
        if need * copies > available_memory() // 2:
            return None
        try:
            return Arena(size=need + SPARE, warm=need + need // 64 + WARM_SPARE)
        except OSError:
            return None  # the slow way, then

    def rehearse(self) -> None:
        """Look at all of them, so that it goes faster the next time."""
        for one in self._captures:
            one.rehearse()

    def freeze(self) -> None:
        """Read all of them; all tasks stand."""
        held = capture.leases()
        for one in self._captures:
            begin = time.monotonic_ns()
            one.freeze(held)
            self._stood.append(time.monotonic_ns() - begin)

    def finish(self) -> dict[str, dict[str, Any]]:
        """Write the views; what the manifest says of each, by the place of the mount."""
        from ..store import writing

        described: dict[str, dict[str, Any]] = {}
        for number, (mount, one) in enumerate(zip(self._mounts, self._captures, strict=True)):
            name = NAME.format(number)
            with writing(f"Failed to write the files of '{mount.place}'"):
                (self._staging / name).write_bytes(one.finish(ended=False).encode())
            described[mount.place] = {"view": name, "stood": self._stood[number]}
        return described

    def abandon(self) -> None:
        """Close what is open."""
        self._scope.close()


def available_memory() -> int:
    """Bytes that can be had without swapping."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    (kilobytes,) = (line.split()[1] for line in lines if line.startswith("MemAvailable:"))
    return int(kilobytes) * 1024


def is_in_memory(directory: Path) -> bool:
    """Whether what is written to @directory goes to no disk."""
    device = directory.stat().st_dev
    return any(mount.device == device and mount.type == "tmpfs" for mount in mounts_of("self"))


def _used(fd: int) -> int:
    status = os.fstatvfs(fd)
    if not status.f_blocks:  # mounted without a limit, it counts nothing
        return sum(entry.st_blocks * 512 for _, entry in TreeLook(fd).entries())
    return (status.f_blocks - status.f_bfree) * status.f_frsize


def load(image: Image, manifest: Manifest, name: str) -> view.View:
    """The view in the file @name of @image; raises ImageError unless it is as written."""
    entry = next((file for file in manifest.files if file.name == name), None)
    if entry is None:
        raise ImageError(f"The manifest does not list '{name}'")
    manifests.check_digest(image.path, entry)
    with manifests.reading(f"'{name}' of the image"):
        data = (image.path / name).read_bytes()
    return view.decode(data)


def names(manifest: Manifest) -> list[str]:
    """The files of an image that hold a view of a tmpfs."""
    return [mount["view"] for mount in manifest.mounts if mount.get("view")]


def fill(
    fd: int, place: str, wanted: view.View, contents: Contents, *, busy: Iterable[str]
) -> None:
    """Make the tmpfs that the mount @fd shows what @wanted says.

    @busy are paths in it on which something is mounted: they stay. Raises HostError, ImageError.
    """
    stay = {path for name in busy for path in _with_parents(name)}
    with Tree(Path(place), fd=os.dup(fd)) as tree:
        changes = [
            change
            for change in rollback.compare(tree, wanted, full=True)
            if change.what != "new" or change.path not in stay
        ]
        with os_errors(HostError, f"Failed to bring back the files in '{place}' of the container"):
            rollback.bring_changes(tree, wanted, changes, contents)


def _with_parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[: n + 1]) for n in range(len(parts))]
