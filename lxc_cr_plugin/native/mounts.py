# SPDX-License-Identifier: LGPL-2.1-or-later
"""Mounts by descriptor: made and attached without a path ever being followed.

All of these raise OSError. Whoever enters a mount namespace has to be a process of its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from ._engine import ffi, lib
from .filesystem import checked


def enter(pid: int, root_fd: int, *, as_root: bool) -> None:
    """Enter the mount namespace of process @pid; @root_fd becomes the root directory.

    With @as_root the process is from then on the root of the user namespace of @pid, and may do no
    more than that one.
    """
    other = as_root and not Path(f"/proc/{pid}/ns/user").samefile("/proc/self/ns/user")
    pidfd = os.pidfd_open(pid)
    try:
        checked(lib.cr_enter_mounts(pidfd, root_fd, other))
    finally:
        os.close(pidfd)
    if other:
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)


def open_in_root(root_fd: int, path: str) -> int:
    """A descriptor (O_PATH) of @path, with @root_fd as the root, through no symbolic link."""
    return checked(lib.cr_open_in_root(root_fd, os.fsencode(path)), path)


def identity(fd: int) -> int:
    """The number of the mount in which the open place @fd lies."""
    found = ffi.new("uint64_t *")
    checked(lib.cr_mount_id(fd, found))
    return int(found[0])


def clone(fd: int) -> int:
    """The mount that the open place @fd shows, without those below it, attached nowhere."""
    return checked(lib.cr_mount_clone(fd))


def new(kind: str, options: Iterable[tuple[str, str | None]]) -> int:
    """A new file system of this kind, mounted and attached nowhere; an option may be a flag: None."""
    context = checked(lib.cr_filesystem_open(kind.encode()), kind)
    try:
        for key, value in options:
            text = ffi.NULL if value is None else os.fsencode(value)
            checked(lib.cr_filesystem_option(context, os.fsencode(key), text), key)
        return checked(lib.cr_filesystem_mount(context), kind)
    finally:
        os.close(context)


def change(fd: int, *, add: int = 0, take: int = 0, propagation: int = 0) -> None:
    """Set and clear MOUNT_ATTR_* of the mount @fd, and its propagation unless 0."""
    checked(lib.cr_mount_set(fd, add, take, propagation))


def attach(fd: int, place: int) -> None:
    """Put the mount @fd on the open @place, over what is there."""
    checked(lib.cr_mount_attach(fd, place))
