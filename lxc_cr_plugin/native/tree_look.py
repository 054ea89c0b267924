# SPDX-License-Identifier: LGPL-2.1-or-later
"""A look at every path of a file tree, by the engine: Python would take ten times as long."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

from ..errors import UnsupportedError
from ._engine import ffi, lib

ENTRY = struct.Struct("<QQQQQQqqIIIII4x")
SECOND = 1_000_000_000

# No path is longer; and how much of a longer one is shown.
LONGEST_PATH = int(lib.CR_LONGEST_PATH)
SHOWN_PATH = 60


class Status(NamedTuple):
    """What lstat(2) says of a path, as far as snapshots ask; named as in os.stat_result."""

    st_ino: int
    st_dev: int
    st_rdev: int
    st_size: int
    st_blocks: int
    st_mtime_ns: int
    st_ctime_ns: int
    st_mode: int
    st_uid: int
    st_gid: int
    st_nlink: int


class TreeLook:
    """All paths below an open directory at one time, on the same file system; "" is itself.

    What vanishes meanwhile is left out. Raises UnsupportedError for a path that is too long
    (LONGEST_PATH), OSError when it cannot look.
    """

    def __init__(self, fd: int) -> None:
        self.native = ffi.gc(ffi.new("struct cr_tree_look *"), lib.cr_tree_forget)
        result = lib.cr_tree_look(fd, self.native)
        if result == -errno.ENAMETOOLONG:
            raise self._too_deep()
        _checked(result)

    def _too_deep(self) -> UnsupportedError:
        # It is in this directory.
        path = self.path(self.native.last)
        return UnsupportedError(
            f"The container has a path that is longer than {LONGEST_PATH - 1} bytes: "
            f"/{path[:SHOWN_PATH]}...",
            hint="Remove or rename it, or leave the files out with --files none",
            object="directory",
        )

    def path(self, index: int) -> str:
        """The path of the entry with this number."""
        return os.fsdecode(ffi.string(self.native.paths + self.native.entries[index].path))

    def entries(self) -> Iterator[tuple[str, Status]]:
        """Every path with what was seen, a directory before what is in it."""
        look = self.native
        data = ffi.buffer(look.entries, look.count * ENTRY.size)
        names = bytes(ffi.buffer(look.paths, look.paths_size)).split(b"\0")
        for name, (_, *members) in zip(names, ENTRY.iter_unpack(data), strict=False):
            yield os.fsdecode(name), _status(*members)

    def forget(self, index: int) -> None:
        """Whatever a later look finds at the entry with this number is changed."""
        self.native.entries[index].inode = 0

    def changed(self, before: TreeLook, *, since: int) -> list[tuple[str, Status]]:
        """What @before has not seen like that, and what was changed at or after @since (ns)."""
        look = self.native
        found = ffi.new("uint32_t[]", int(look.count))
        count = _checked(lib.cr_tree_changed(look, before.native, since, found))
        data = ffi.buffer(look.entries, look.count * ENTRY.size)
        return [self._entry(data, found[n]) for n in range(count)]

    def _entry(self, data: Any, index: int) -> tuple[str, Status]:
        _, *members = ENTRY.unpack_from(data, index * ENTRY.size)
        return self.path(index), _status(*members)


def _status(
    inode: int, device: int, rdev: int, size: int, blocks: int, mtime: int, ctime: int,
    mode: int, uid: int, gid: int, nlink: int, mtime_ns: int,
) -> Status:  # fmt: skip
    modified = mtime * SECOND + mtime_ns
    return Status(inode, device, rdev, size, blocks, modified, ctime, mode, uid, gid, nlink)


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    return result
