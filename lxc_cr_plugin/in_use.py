# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who is at work with an image: whoever has its directory locked.

A command that reads an image for longer shares the lock with others, so that nobody removes it
meanwhile; whoever writes or removes it has the lock alone. It is held by an open file, which the
engine's process inherits: an engine that outlives its command still holds the image.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from .errors import StoreError, os_message
from .run import until

# How long a removal or the end of a write may take, seconds.
HOLD_TIMEOUT = 10.0


def hold(path: Path) -> int:
    """A descriptor of the image at @path: as long as it or a copy is open, nobody removes that.

    Raises StoreError when it is not there any more, or is written or removed just now.
    """
    gone = StoreError(
        f"Image '{_name_of(path)}' was removed just now", hint="`lxc-cr ls` shows what there is"
    )
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ENOENT:
            raise gone from error
        raise StoreError(
            f"Failed to open image '{_name_of(path)}': {os_message(error)}", errno=error.errno or 0
        ) from error
    try:
        if not until(lambda: try_lock(fd, fcntl.LOCK_SH), timeout=HOLD_TIMEOUT):
            raise StoreError(
                f"Image '{_name_of(path)}' is still being written, or removed",
                hint="Wait until that is over",
            )
        # Whoever had it claimed until now may have removed it.
        try:
            there = os.path.samestat(path.stat(), os.fstat(fd))
        except OSError:
            there = False
        if not there:
            raise gone
    except BaseException:
        os.close(fd)
        raise
    return fd


@contextlib.contextmanager
def claimed(path: Path) -> Iterator[None]:
    """Let nobody begin to work with the image at @path, which is to be removed.

    Raises StoreError, with errno EBUSY, when somebody holds it, or still writes it.
    """
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if not try_lock(fd):
            raise StoreError(
                f"Image '{_name_of(path)}' is in use",
                hint="Wait until the command that works with it has finished",
                errno=errno.EBUSY,
            )
        yield
    finally:
        os.close(fd)


def _name_of(path: Path) -> str:
    return f"{path.parent.name}@sha256:{path.name[:12]}"


def try_lock(fd: int, how: int = fcntl.LOCK_EX) -> bool:
    """Lock @fd, see flock(2); False when somebody else has it locked."""
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
