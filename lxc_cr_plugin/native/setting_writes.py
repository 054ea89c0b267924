# SPDX-License-Identifier: LGPL-2.1-or-later
"""How often somebody has written a setting of sysctl(8): the kernel counts for us."""

from __future__ import annotations

import mmap
import os
import struct
from contextlib import ExitStack

from ._engine import ffi, lib

COUNT = struct.Struct("=Q")


class SettingWrites:
    """Counts from now on, whoever below @cgroup, a directory of cgroup v2, writes. close() it.

    Raises OSError where this kernel cannot, or may not.
    """

    def __init__(self, cgroup: str) -> None:
        counter, link = ffi.new("int *"), ffi.new("int *")
        with ExitStack() as scope:
            directory = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            scope.callback(os.close, directory)
            result = lib.cr_count_setting_writes(directory, counter, link)
            if result < 0:
                raise OSError(-result, os.strerror(-result))
            self._link = int(link[0])
            scope.callback(os.close, counter[0])
            self._memory = mmap.mmap(counter[0], mmap.PAGESIZE, prot=mmap.PROT_READ)

    def count(self) -> int:
        """How often; a write that goes on right now may be among them."""
        (count,) = COUNT.unpack_from(self._memory)
        return int(count)

    def close(self) -> None:
        """Count no more."""
        self._memory.close()
        os.close(self._link)
