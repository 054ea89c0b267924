# SPDX-License-Identifier: LGPL-2.1-or-later
"""A capture of a tree that is read whole inside the stop, by the engine, into memory.

For a tmpfs: no stamp tells that a content is as it was, because a store into a mapping never moves a
time. What is read is written to the image when the container runs again.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable
from pathlib import Path

from ..errors import CheckpointError, os_message
from ..native.tree_take import Arena, Held, Taken
from .capture import Capture, Known, Leases, Reading, leases, place_of
from .tree import SHADOWS, AnyStatus, Tree
from .view import INLINE, View


class MemoryCapture(Capture):
    """See `Capture`; everything goes into @arena first."""

    def __init__(self, tree: Tree, *, target: Path, prefix: str, arena: Arena) -> None:
        super().__init__(tree, target=target, known=Known({}, {}), prefix=prefix)
        self._arena = arena
        self._directory = target
        self._taken: Taken | None = None

    def prepare(self, *, check_space: Callable[[int], None]) -> None:
        """Nothing: what was read before could be another content by then."""

    def freeze(self, held: Leases | None = None) -> None:
        self._leases = leases() if held is None else held
        self._now = self._tree.look()
        skipped = [inode for device, inode in self._leases if device == self._device]
        try:
            self._taken = self._arena.take(self._tree.fd, self._now, skipped=skipped)
        except OSError as error:
            raise CheckpointError(
                f"Failed to read '/{error.filename}' of '{self._tree.path}' of the container: "
                f"{os_message(error)}",
                errno=error.errno or 0,
                hint="It has grown since it was looked at: try again"
                if error.errno == errno.ENOSPC
                else None,
            ) from error
        for number, (path, status) in self._leased(skipped):
            if self._taken[number] is None:
                self._read(path, status, standing=True)

    def _leased(self, skipped: Iterable[int]) -> list[tuple[int, tuple[str, AnyStatus]]]:
        if not skipped or not self._now:
            return []
        return [
            (number, entry)
            for number, entry in enumerate(self._now.entries())
            if entry[1].st_ino in skipped
        ]

    def finish(self, *, ended: bool) -> View:
        if self._now and self._taken:
            for number, (_, status) in enumerate(self._now.entries()):
                place, held = place_of(status), self._taken[number]
                if held and place not in self._readings:
                    self._readings[place] = self._reading(status, held)
        return super().finish(ended=ended)

    def _reading(self, status: AnyStatus, held: Held) -> Reading:
        """What `_read` would have made of it."""
        xattrs = {key: held.xattrs[key] for key in sorted(held.xattrs.keys() - SHADOWS)}
        if stat.S_ISREG(status.st_mode) and status.st_size > INLINE:
            with self._new_copy(self._directory) as (copy, fd):
                for begin, data in held.data:
                    _write(fd, data, begin)
                os.ftruncate(fd, status.st_size)
            return Reading(xattrs, copy=copy, sure=False)
        if stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode):
            whole = bytearray(status.st_size)
            for begin, piece in held.data:
                whole[begin : begin + len(piece)] = piece
            return Reading(xattrs, data=bytes(whole), sure=False)
        return Reading(xattrs, sure=False)


def _write(fd: int, data: memoryview, position: int) -> None:
    while data:
        done = os.pwrite(fd, data, position)
        data, position = data[done:], position + done
