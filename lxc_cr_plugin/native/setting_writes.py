# SPDX-License-Identifier: LGPL-2.1-or-later
"""How often somebody has written a setting of a network: the kernel counts for us."""

from __future__ import annotations

import mmap
import os
import struct
from contextlib import ExitStack

from ._engine import ffi, lib

COUNT = struct.Struct("=Q")


class SettingWrites:
    """Counts from now on, whoever below @cgroup, a directory of cgroup v2, writes below sys/net.

    close() it.

    Raises OSError where this kernel cannot, or may not.
    """

    def __init__(self, cgroup: str) -> None:
        with ExitStack() as undo:
            counter, link = _attach(cgroup)
            undo.callback(os.close, link)
            try:
                self._memory = mmap.mmap(counter, mmap.PAGESIZE, prot=mmap.PROT_READ)
            finally:
                os.close(counter)
            undo.callback(self._memory.close)
            self._scope = undo.pop_all()

    def count(self) -> int:
        """How often somebody has begun to: a write is counted before it has any effect."""
        (count,) = COUNT.unpack_from(self._memory)
        return int(count)

    def close(self) -> None:
        """Count no more."""
        self._scope.close()


def _attach(cgroup: str) -> tuple[int, int]:
    """Descriptors of the number, and of what holds the program that counts where it is."""
    counter, link = ffi.new("int *"), ffi.new("int *")
    directory = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        result = lib.cr_count_setting_writes(directory, counter, link)
    finally:
        os.close(directory)
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    return int(counter[0]), int(link[0])
