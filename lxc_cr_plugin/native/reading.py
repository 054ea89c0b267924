# SPDX-License-Identifier: LGPL-2.1-or-later
"""Many small files read at once: under the stop of a container every microsecond counts."""

from __future__ import annotations

import mmap
from collections.abc import Sequence

from ._engine import ffi, lib


class Reading:
    """The beginnings of files that are open, read again and again by one call each time.

    @longest: how many bytes of each. `contents` takes them apart when there is time for it.
    """

    def __init__(self, fds: Sequence[int], *, longest: int) -> None:
        self._count = len(fds)
        self._longest = longest
        self._fds = ffi.new("int[]", list(fds))
        self._lengths = ffi.new("int32_t[]", len(fds))
        # Anonymous memory: what is not needed of it costs nothing.
        self._room = max(1, len(fds)) * longest
        self._memory = mmap.mmap(-1, self._room)
        self._buffer = ffi.from_buffer("uint8_t[]", self._memory)

    def take(self) -> None:
        """Read all of them now; one that cannot be read has no contents."""
        # The room is enough for all of them: this cannot fail.
        lib.cr_read_all(
            self._fds, self._count, self._longest, self._buffer, self._room, self._lengths
        )

    def contents(self) -> list[bytes | None]:
        """What the last `take` has read, in the order of the files."""
        found: list[bytes | None] = []
        at = 0
        for length in self._lengths:
            found.append(self._memory[at : at + length] if length >= 0 else None)
            at += max(0, length)
        return found
