# SPDX-License-Identifier: LGPL-2.1-or-later
"""Small files that steer what root does, and therefore must be root's own."""

from __future__ import annotations

import os
import stat
from pathlib import Path

# Far beyond any configuration; a mistaken path must not fill our memory.
LARGEST = 1 << 20


class Untrusted(Exception):
    """The file may have been written by somebody else; the text says why, without its name."""


def read_trusted(path: Path) -> bytes:
    """The content of a file that only root can have written; raises Untrusted or OSError.

    Looked at is the file that was opened, not what has its name a moment later.
    """
    # A fifo would wait for its writer, a terminal would become ours.
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise Untrusted("is not a plain file")
        if status.st_uid != os.geteuid():
            raise Untrusted("does not belong to root")
        if status.st_mode & 0o022:
            raise Untrusted("can be written by others than root")
        data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise Untrusted(f"is larger than {LARGEST >> 20} MiB")
    return data


def write_durably(path: Path, data: bytes) -> None:
    """Replace the content of @path, mode 0600, in one step that survives a power cut; OSError."""
    new = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(fd)
        new.rename(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    sync(path.parent)


def remove_durably(path: Path) -> None:
    """Remove @path, if it is there, so that it does not come back after a power cut; OSError."""
    try:
        path.unlink()
    except FileNotFoundError:
        return
    sync(path.parent)


def sync(path: Path) -> None:
    """Wait until @path, a file or a directory, is on the disk."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
