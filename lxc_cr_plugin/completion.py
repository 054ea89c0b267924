# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a restart adds to the container that the runtime has made, before anything in it runs.

The runtime's mounts stand, and its tmpfs are empty. They get their files back, what was mounted inside
is mounted again, and what the host mounts has to be what it was at the checkpoint.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from . import mounts, remount
from .errors import HostError, RestartError
from .inside import clone_mounts
from .mounts import Mount

# <linux/prctl.h>, <linux/securebits.h>
PR_SET_SECUREBITS = 28
SECBIT_NO_SETUID_FIXUP = 1 << 2

# Flags of a mount that forbid something.
RESTRICTIONS = ("ro", "nosuid", "nodev", "noexec", "nosymfollow")

if TYPE_CHECKING:
    from .manifest import Manifest
    from .store import Image


def complete(
    image: Image, manifest: Manifest, init_pid: int, *, substituted: Collection[str]
) -> list[str]:
    """Complete the mounts of the container with this init; nothing in it runs yet.

    Sources of mounts at the places @substituted may be others than they were. Returns places where the
    runtime has mounted something, and nothing was mounted at the checkpoint. Raises RestartError,
    HostError and ImageError: then the restart has failed.
    """
    if not manifest.mounts:
        return []
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
        ready = fill_new(image, manifest, entries, made, init_pid=init_pid, undo=undo)
        changed = [
            mount for mount, entry in entries if not entry["inside"] and is_changed(mount, now)
        ]
        refuse_looser(changed, now)
        if made or changed:
            remount.attach_all(init_pid, made, recorded, ready, changed=changed)
    # Not unmounted: it may protect something, or be configured since.
    before = {mount.place for mount in recorded}
    return [mount.place for mount in now if mount.place not in before]


def become_root_of(init_pid: int) -> None:
    """Make files for the root of the user namespace of @init_pid, in this process and for good.

    A tmpfs of that namespace has no number for an owner outside of it. Capabilities stay.
    """
    import ctypes

    uid, gid = (owner.on_host(0) or 0 for owner in remount.owners_of(init_pid).values())
    if (uid, gid) == (0, 0):
        return
    libc: Any = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0) < 0:
        number = ctypes.get_errno()
        raise HostError(f"Failed to keep capabilities: {os.strerror(number)}", errno=number)
    libc.setfsgid(gid)
    libc.setfsuid(uid)


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
    # Never one of the host's, whatever the image says: filling it would delete what is there.
    own = {mount.device for mount in mounts.volatile(now)}
    for mount, _ in wanted:
        there = mount_at(now, mount.place)
        if there is None or there.device not in own or there.root != "/":
            raise HostError(
                f"'{mount.place}' was a tmpfs of the container at the checkpoint, and LXC has "
                "mounted none there",
                hint="Put the container's configuration back as it was",
            )
        places.append((mount.place, there.device))
    fds = clone_mounts(init_pid, places)
    undo.callback(remount.close_all, fds)
    for (mount, entry), fd in zip(wanted, fds, strict=True):
        fill(image, manifest, entry, fd=fd, busy=remount.below(now, mount.place))


def fill_new(
    image: Image,
    manifest: Manifest,
    entries: Sequence[tuple[Mount, dict[str, Any]]],
    made: Sequence[Mount],
    *,
    init_pid: int,
    undo: ExitStack,
) -> dict[int, int]:
    """Make the tmpfs that were mounted inside, with their files: descriptors by the ids of mounts."""
    wanted = [(m, entry) for m, entry in entries if entry.get("view") and entry["inside"]]
    fds = remount.make_new(init_pid, [mount for mount, _ in wanted])
    undo.callback(remount.close_all, fds)
    for (mount, entry), fd in zip(wanted, fds, strict=True):
        fill(image, manifest, entry, fd=fd, busy=remount.below(made, mount.place))
    return {mount.id: fd for (mount, _), fd in zip(wanted, fds, strict=True)}


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


def refuse_looser(changed: Sequence[Mount], now: Sequence[Mount]) -> None:
    """Raise RestartError when a mount would get rid of a restriction that the runtime gave it.

    In its own tmpfs a container may allow itself what it likes. Everywhere else the configuration
    has the last word, and no image.
    """
    own = {mount.device for mount in mounts.volatile(now)}
    for mount in changed:
        there = mount_at(now, mount.place)
        if there is None or there.device in own:
            continue
        counts = ("ro",) if mount.type in mounts.OF_KERNEL else RESTRICTIONS
        for word in counts:
            if word in there.options.split(",") and word not in mount.options.split(","):
                raise RestartError(
                    f"'{mount.place}' is mounted {word}, and in the image it is not",
                    hint="What was allowed inside does not come back: let the configuration mount "
                    "it so (lxc.mount.auto, lxc.mount.entry, lxc.rootfs.options)",
                )


def check_source(
    mount: Mount, identity: dict[str, Any], now: Sequence[Mount], *, init_pid: int
) -> None:
    """Raise RestartError unless at its place is the directory of the host that was there."""
    there = mount_at(now, mount.place)
    hint = (
        f"Mount the same again, or accept another one: --mount {mount.place}=SOURCE, or "
        f"other_mounts = [\"{mount.place}\"] in lxc-cr.toml; it was '{identity['source']}'"
    )
    if there is None:
        raise RestartError(
            f"Nothing is mounted at '{mount.place}', where the host had mounted something",
            hint=hint,
        )
    found = mounts.identity(there, init_pid=init_pid)
    # A file system in memory has another number after every boot: it is known by its place.
    name = "source" if mount.type in mounts.IN_MEMORY else "filesystem"
    for what, member in (("another type", "type"), ("another file system", name)):
        if found[member] != identity[member]:
            raise RestartError(
                f"At '{mount.place}' {what} is mounted than at the checkpoint: "
                f"{found[member]} instead of {identity[member]}",
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
