# SPDX-License-Identifier: LGPL-2.1-or-later
"""A thread that lives in a container's network namespace: sockets and /proc/sys/net are its own there."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from ..errors import HostError

Result = TypeVar("Result")

CLONE_NEWNET = 0x40000000


class Namespace:
    """The network namespace of process @pid, for a `with` block; `call` runs things there."""

    def __init__(self, pid: int) -> None:
        """Raises HostError when the process is gone."""
        try:
            fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise HostError(f"Failed to find the network of process {pid}: {error}") from error
        self._thread = ThreadPoolExecutor(1)
        try:
            self.call(lambda: _enter(fd))
        except BaseException:
            self.close()
            raise
        finally:
            os.close(fd)

    def __enter__(self) -> Namespace:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def call(self, work: Callable[[], Result]) -> Result:
        """What @work returns or raises inside."""
        return self._thread.submit(work).result()

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown()


def _enter(fd: int) -> None:
    libc: Any = ctypes.CDLL(None, use_errno=True)
    if libc.setns(fd, CLONE_NEWNET) < 0:
        number = ctypes.get_errno()
        raise HostError(
            f"Failed to enter the container's network: {os.strerror(number)}", errno=number
        )
