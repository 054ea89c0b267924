# SPDX-License-Identifier: LGPL-2.1-or-later
"""Calls about files that Python does not have. All of these raise OSError."""

from __future__ import annotations

import os

from ._engine import lib


def open_beneath(root_fd: int, path: str, flags: int, mode: int = 0) -> int:
    """Open @path below the directory @root_fd, through neither symbolic links nor mounts.

    Raises OSError: ELOOP for a symbolic link, EXDEV for a mount or a way out.
    """
    return checked(lib.cr_open_beneath(root_fd, os.fsencode(path), flags, mode), path)


def descriptor_of(pid: int, fd: int) -> int:
    """A copy of descriptor @fd of process @pid; raises OSError."""
    return checked(lib.cr_descriptor_of(pid, fd), f"/proc/{pid}/fd/{fd}")


def write_back(fd: int) -> None:
    """Write dirty pages of @fd: from now on a store into a mapping moves its ctime. OSError."""
    checked(lib.cr_write_back(fd), None)


def sync_filesystem(fd: int) -> None:
    """syncfs(2) of the file system of @fd; raises OSError."""
    checked(lib.cr_sync_filesystem(fd), None)


def exchange(one_dir: int, one: str, other_dir: int, other: str) -> None:
    """Let two names in open directories be names of each other's file, at once; raises OSError."""
    names = os.fsencode(one), os.fsencode(other)
    checked(lib.cr_exchange(one_dir, names[0], other_dir, names[1]), one)


def checked(result: int, path: str | None = None) -> int:
    """What the engine returned, a negative errno as an exception about @path."""
    if result < 0:
        raise OSError(-result, os.strerror(-result), path)
    return result
