# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a restart adds to the container that the runtime has made, before anything in it runs.

The runtime's mounts stand, and its tmpfs are empty. They get their files back, what was mounted inside
is mounted again, and what the host mounts has to be what it was at the checkpoint.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import mounts, remount
from .errors import HostError, RestartError
from .inside import clone_mounts
from .mounts import Mount

# <linux/prctl.h>, <linux/securebits.h>
PR_SET_SECUREBITS = 28
SECBIT_NO_SETUID_FIXUP = 1 << 2

if TYPE_CHECKING:
    from .manifest import Manifest
    from .store import Image


def complete(
    image: Image, manifest: Manifest, init_pid: int, *, substituted: Collection[str]
) -> None:
    """Complete the mounts of the container with this init; nothing in it runs yet.

    Sources of mounts at the places @substituted may be others than they were. Raises RestartError,
    HostError and ImageError: then the restart has failed.
    """
    if not manifest.mounts:
        return
    become_root_of(init_pid)
    now = mounts.read(init_pid)
    entries = [(remount.from_manifest(entry), entry) for entry in manifest.mounts]
    recorded = [mount for mount, _ in entries]
    for mount, entry in entries:
        if "identity" in entry and mount.place not in substituted:
            check_source(mount, entry["identity"], now, init_pid=init_pid)
    made = [mount for mount, entry in entries if entry["inside"]]
    with ExitStack() as undo:
        fill_runtime(image, manifest, entries, now, init_pid=init_pid, undo=undo)
        ready = {}
        for mount, entry in entries:
            if entry["inside"] and entry.get("view"):
                ready[mount.id] = remount.make_new(mount)
                undo.callback(remount.close_all, [ready[mount.id]])
                busy = remount.below(made, mount.place)
                fill(image, manifest, entry, fd=ready[mount.id], busy=busy)
        changed = [
            mount for mount, entry in entries if not entry["inside"] and is_changed(mount, now)
        ]
        if made or changed:
            remount.attach_all(init_pid, made, recorded, ready, changed=changed)


def become_root_of(init_pid: int) -> None:
    """Make files for the root of the user namespace of @init_pid, in this process and for good.

    A tmpfs of that namespace has no number for an owner outside of it. Capabilities stay.
    """
    import ctypes

    uid, gid = (root_in(Path(f"/proc/{init_pid}/{sort}_map")) for sort in ("uid", "gid"))
    if (uid, gid) == (0, 0):
        return
    libc: Any = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0) < 0:
        number = ctypes.get_errno()
        raise HostError(f"Failed to keep capabilities: {os.strerror(number)}", errno=number)
    libc.setfsgid(gid)
    libc.setfsuid(uid)


def root_in(path: Path) -> int:
    """The id on the host of the root of a user namespace, by its uid_map or gid_map."""
    rows = [tuple(map(int, line.split())) for line in path.read_text().splitlines()]
    return next((outside for inside, outside, _ in rows if inside == 0), 0)


def fill_runtime(
    image: Image,
    manifest: Manifest,
    entries: Sequence[tuple[Mount, dict[str, Any]]],
    now: Sequence[Mount],
    *,
    init_pid: int,
    undo: ExitStack,
) -> None:
    """Fill the tmpfs that the runtime has mounted."""
    wanted = [(m, entry) for m, entry in entries if entry.get("view") and not entry["inside"]]
    places = []
    for mount, _ in wanted:
        there = mount_at(now, mount.place)
        if there is None or there.type != mount.type:
            raise HostError(
                f"'{mount.place}' was a tmpfs at the checkpoint, and LXC has mounted none there",
                hint="Put the container's configuration back as it was",
            )
        places.append((mount.place, there.device))
    fds = clone_mounts(init_pid, places)
    undo.callback(remount.close_all, fds)
    for (mount, entry), fd in zip(wanted, fds, strict=True):
        fill(image, manifest, entry, fd=fd, busy=remount.below(now, mount.place))


def fill(
    image: Image, manifest: Manifest, entry: dict[str, Any], *, fd: int, busy: Sequence[str]
) -> None:
    """Fill one tmpfs, mounted at @fd, with the files that were in it."""
    from .manifest import CONTENTS
    from .snapshot import volatile
    from .snapshot.source import Contents

    wanted = volatile.load(image, manifest, entry["view"])
    volatile.fill(fd, entry["place"], wanted, Contents(image.path / CONTENTS), busy=busy)


def mount_at(listed: Sequence[Mount], place: str) -> Mount | None:
    """What is to be seen at @place."""
    return next((mount for mount in reversed(listed) if mount.place == place), None)


def is_changed(mount: Mount, now: Sequence[Mount]) -> bool:
    """Whether a mount that the runtime has made again had other flags at the checkpoint."""
    there = mount_at(now, mount.place)
    if there is None or there.type != mount.type:
        return False
    return remount.attributes_of(there.options) != remount.attributes_of(mount.options) or (
        bool(there.groups()) != bool(mount.groups())
    )


def check_source(
    mount: Mount, identity: dict[str, Any], now: Sequence[Mount], *, init_pid: int
) -> None:
    """Raise RestartError unless at its place is the directory of the host that was there."""
    there = mount_at(now, mount.place)
    hint = (
        f"Mount the same again, or accept another one: --mount {mount.place}=SOURCE; "
        f"it was '{identity['source']}'"
    )
    if there is None:
        raise RestartError(
            f"Nothing is mounted at '{mount.place}', where the host had mounted something",
            hint=hint,
        )
    found = mounts.identity(there, init_pid=init_pid)
    for what, name in (("another type", "type"), ("another file system", "filesystem")):
        if found[name] != identity[name]:
            raise RestartError(
                f"At '{mount.place}' {what} is mounted than at the checkpoint: "
                f"{found[name]} instead of {identity[name]}",
                hint=hint,
            )
    if there.root != mount.root:
        raise RestartError(
            f"At '{mount.place}' another directory is mounted than at the checkpoint: "
            f"'{there.root}' instead of '{mount.root}' of that file system",
            hint=hint,
        )
    read_only = ["ro" in one.options.split(",") for one in (there, mount)]
    if read_only[0] != read_only[1]:
        raise RestartError(
            f"'{mount.place}' is mounted {'read-only' if read_only[0] else 'read-write'}, at the "
            "checkpoint it was not",
            hint=hint,
        )
