# SPDX-License-Identifier: LGPL-2.1-or-later
"""All files of a tree read into memory at once, by the engine: inside the stop."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ._engine import ffi, lib
from .tree_look import TreeLook

SKIPPED = 2**64 - 1
EXTENT = struct.Struct("<QQ")
SIZE = struct.Struct("<I")


class Arena:
    """Memory for what is read. Raises OSError when it cannot be had."""

    def __init__(self, *, size: int, warm: int) -> None:
        """At most @size bytes, @warm of them touched already."""
        self._arena = ffi.gc(ffi.new("struct cr_arena *"), lib.cr_arena_drop)
        result = lib.cr_arena_make(self._arena, size, warm)
        if result < 0:
            raise OSError(-result, os.strerror(-result))

    def take(self, fd: int, look: TreeLook, *, skipped: Sequence[int]) -> Taken:
        """What all paths of @look, a look at the open directory @fd, hold.

        Regular files whose inode number is among @skipped are left out. Raises OSError with the path.
        """
        found = ffi.new("struct cr_tree_content[]", int(look.native.count))
        failed = ffi.new("size_t *")
        result = lib.cr_tree_take(
            fd, look.native, skipped, len(skipped), self._arena, found, failed
        )
        if result < 0:
            raise OSError(-result, os.strerror(-result), look.path(failed[0]))
        return Taken(self, found)

    def bytes_at(self, at: int, size: int) -> memoryview:
        """What lies there, as long as the arena is there."""
        return memoryview(ffi.buffer(self._arena.data + at, size)).toreadonly()


class Held(NamedTuple):
    """What one path holds: data from places in a file on, in ascending order."""

    xattrs: dict[str, bytes]
    data: list[tuple[int, memoryview]]


class Taken:
    """What was read, by the numbers of the look's entries."""

    def __init__(self, arena: Arena, contents: object) -> None:
        self._arena = arena
        self._contents = contents

    def __getitem__(self, index: int) -> Held | None:
        """What the entry holds, None when it was skipped."""
        content = self._contents[index]  # type: ignore[index]
        if content.at == SKIPPED:
            return None
        head, xattrs = content.extents * EXTENT.size, content.xattrs_size
        extents = EXTENT.iter_unpack(self._arena.bytes_at(content.at, head))
        at = content.at + head + xattrs
        data = []
        for begin, size in extents:
            data.append((begin, self._arena.bytes_at(at, size)))
            at += size
        return Held(dict(_xattrs(bytes(self._arena.bytes_at(content.at + head, xattrs)))), data)


def _xattrs(packed: bytes) -> Iterator[tuple[str, bytes]]:
    at = 0
    while at < len(packed):
        end = packed.index(b"\0", at)
        (size,) = SIZE.unpack_from(packed, end + 1)
        begin = end + 1 + SIZE.size
        yield os.fsdecode(packed[at:end]), packed[begin : begin + size]
        at = begin + size
