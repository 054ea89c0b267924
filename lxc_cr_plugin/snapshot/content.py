# SPDX-License-Identifier: LGPL-2.1-or-later
"""Contents of regular files: copied with their holes, shared where the file system can, hashed."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from collections.abc import Iterator

# ioctl(2) of linux/fs.h: let a file share all blocks of another one.
FICLONE = 0x40049409

# Contents are hashed in pieces of this size, those that are all zeros left out: a hole and written
# zeros are the same content, and a hole of a terabyte takes no time.
PIECE = 1 << 16
ZEROS = bytes(PIECE)

COPY_AT_ONCE = 1 << 30


def copy(source: int, target: int, *, size: int) -> None:
    """Copy the first @size bytes of @source into the empty file @target, holes as holes."""
    try:
        fcntl.ioctl(target, FICLONE, source)
    except OSError:
        for begin, end in extents(source, size=size):
            _copy_range(source, target, begin, end)
    os.ftruncate(target, size)


def _copy_range(source: int, target: int, begin: int, end: int) -> None:
    by_kernel = True
    while begin < end:
        count = min(end - begin, COPY_AT_ONCE)
        if by_kernel:
            try:
                done = os.copy_file_range(source, target, count, begin, begin)
            except OSError as error:
                if error.errno not in (errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
                    raise
                by_kernel = False
                continue
        else:
            done = os.pwrite(target, os.pread(source, min(count, 1 << 20), begin), begin)
        if done == 0:
            return  # it has become shorter; whoever looks at its stamp finds out
        begin += done


def extents(fd: int, *, size: int) -> Iterator[tuple[int, int]]:
    """Where a file has data: begin and end of each stretch below @size."""
    position = 0
    while position < size:
        try:
            begin = os.lseek(fd, position, os.SEEK_DATA)
            position = min(os.lseek(fd, begin, os.SEEK_HOLE), size)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        if begin >= size:
            return
        yield begin, position


def digest(fd: int, *, size: int) -> bytes:
    """SHA-256 of a content, the same however much of it is holes."""
    hasher = _begin(size)
    done = 0
    for begin, end in extents(fd, size=size):
        position = max(done, begin - begin % PIECE)
        while position < end:
            _add(hasher, position, os.pread(fd, min(PIECE, size - position), position))
            position += PIECE
        done = position
    return hasher.digest()


def digest_of_bytes(data: bytes) -> bytes:
    """The same for a content in memory."""
    hasher = _begin(len(data))
    for position in range(0, len(data), PIECE):
        _add(hasher, position, data[position : position + PIECE])
    return hasher.digest()


def _begin(size: int) -> hashlib._Hash:
    return hashlib.sha256(size.to_bytes(8, "big"))


def _add(hasher: hashlib._Hash, position: int, piece: bytes) -> None:
    if piece != ZEROS[: len(piece)]:
        hasher.update(position.to_bytes(8, "big"))
        hasher.update(piece)
