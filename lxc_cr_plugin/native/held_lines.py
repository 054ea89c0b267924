# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the engine says inside the stop: kept where it survives an engine that is killed there."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from typing import Any

from ..log import WARNING
from ._engine import ffi, lib


class HeldLines:
    """Memory for a struct cr_held_lines, `lines`, that children of this process share."""

    def __init__(self) -> None:
        memory = mmap.mmap(-1, ffi.sizeof("struct cr_held_lines"))
        self.lines: Any = ffi.cast("struct cr_held_lines *", ffi.from_buffer(memory))
        # The pointer alone does not keep it mapped.
        self._memory = memory

    def take(self) -> Iterator[tuple[int, str]]:
        """What nobody has heard yet: level, one of Python's logging, and text.

        Each line once, but for one that an engine was killed while it told it.
        """
        lines = self.lines
        # An engine that crashed may have written anything.
        used = min(lines.used, lib.CR_HELD_ROOM)
        while lines.told < used:
            begin = lines.told
            line = ffi.string(lines.text + begin + 1, used - begin - 1)
            lines.told = begin + 1 + len(line) + 1
            level = (ord(lines.text[begin]) + 1) * 10
            yield level, line.decode(errors="surrogateescape")
        if lines.lost:
            yield WARNING, f"{lines.lost} lines of the engine were lost: there were too many"
            lines.lost = 0
