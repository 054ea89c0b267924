# SPDX-License-Identifier: LGPL-2.1-or-later
"""Subvolumes of btrfs, by the system calls of linux/btrfs.h: no tool is executed.

A directory is the root of a subvolume when its inode number is 256 and its file system is btrfs.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from .. import native

ROOT_INODE = 256
READ_ONLY = 1 << 1

# ioctl(2) numbers; each structure is named as in linux/btrfs.h.
SNAP_DESTROY = 0x5000940F  # btrfs_ioctl_vol_args
SUBVOL_CREATE = 0x5000940E  # btrfs_ioctl_vol_args
SNAP_CREATE_V2 = 0x50009417  # btrfs_ioctl_vol_args_v2
INO_LOOKUP = 0xD0009412  # btrfs_ioctl_ino_lookup_args
SUBVOL_GETFLAGS = 0x80089419  # __u64
SUBVOL_SETFLAGS = 0x4008941A  # __u64
FS_INFO = 0x8400941F  # btrfs_ioctl_fs_info_args
GET_SUBVOL_INFO = 0x81F8943C  # btrfs_ioctl_get_subvol_info_args
GET_SUBVOL_ROOTREF = 0xD000943D  # btrfs_ioctl_get_subvol_rootref_args

ARGUMENT = 4096

# Of the subvolumes inside another one so many are told at once.
MOST_REFERENCES = 255


class Info(NamedTuple):
    """What identifies a subvolume and its state; generations are numbers of transactions."""

    uuid: bytes
    parent: bytes  # the subvolume that it is a snapshot of
    generation: int  # the last one that changed it
    made: int  # the one that made it


def info(fd: int) -> Info:
    """What the subvolume of the open directory @fd is. Raises OSError: not a subvolume."""
    if os.fstat(fd).st_ino != ROOT_INODE:
        raise OSError(errno.EINVAL, "not the root of a subvolume")
    data = fcntl.ioctl(fd, GET_SUBVOL_INFO, bytes(504))
    # treeid, name[256], parent_id, dirid, generation, flags, three uuids, ctransid, otransid
    generation, _flags = struct.unpack_from("<QQ", data, 8 + 256 + 16)
    uuid, parent = struct.unpack_from("16s16s", data, 296)
    (made,) = struct.unpack_from("<Q", data, 296 + 48 + 8)
    return Info(uuid, parent, generation, made)


def filesystem(fd: int) -> bytes | None:
    """The identity of the btrfs that the open file @fd is on; None on any other file system."""
    argument = bytearray(1024)
    try:
        fcntl.ioctl(fd, FS_INFO, argument)
    except OSError:
        return None
    return bytes(argument[16:32])


def is_read_only(fd: int) -> bool:
    """Whether nobody can change the subvolume @fd."""
    (flags,) = struct.unpack("<Q", fcntl.ioctl(fd, SUBVOL_GETFLAGS, bytes(8)))
    return bool(flags & READ_ONLY)


def set_read_only(fd: int, wanted: bool) -> None:
    """Let nobody change the subvolume @fd, or everybody again. Raises OSError."""
    if is_read_only(fd) != wanted:
        fcntl.ioctl(fd, SUBVOL_SETFLAGS, struct.pack("<Q", READ_ONLY if wanted else 0))


def snapshot(source: int, directory: int, name: str, *, read_only: bool) -> None:
    """Make a snapshot of the subvolume @source as @name in @directory; durable at the return.

    Dirty pages of @source are written first; subvolumes inside are empty directories there, which
    can only be removed. Raises OSError.
    """
    argument = bytearray(ARGUMENT)
    struct.pack_into("<qQQ", argument, 0, source, 0, READ_ONLY if read_only else 0)
    _put_name(argument, 56, name)
    fcntl.ioctl(directory, SNAP_CREATE_V2, argument)


def copy(source: int, directory: int, name: str) -> frozenset[str]:
    """Make a snapshot of @source and of each subvolume inside, at the same places. Raises OSError.

    All of them can be written to; `seal` changes that for those whose source is read-only: their
    paths are returned.
    """
    inner = nested(source)
    read_only = set()
    snapshot(source, directory, name, read_only=False)
    with opened_beneath(directory, name) as target:
        for path in inner:
            above, _, last = path.rpartition("/")
            with opened_beneath(source, path) as one, opened_beneath(target, above) as parent:
                status = os.fstat(parent)
                os.rmdir(last, dir_fd=parent)
                snapshot(one, parent, last, read_only=False)
                os.utime(parent, ns=(status.st_atime_ns, status.st_mtime_ns))
                if is_read_only(one):
                    read_only.add(path)
    return frozenset(read_only)


def seal(fd: int, paths: Iterable[str]) -> None:
    """Make the subvolumes at these paths in the subvolume @fd read-only; "" is itself.

    What is no subvolume there is left alone. Raises OSError.
    """
    for path in paths:
        with opened_beneath(fd, path) as one:
            if os.fstat(one).st_ino == ROOT_INODE:
                set_read_only(one, True)


def create(directory: int, name: str) -> None:
    """Make the empty subvolume @name in @directory. Raises OSError."""
    argument = bytearray(ARGUMENT)
    _put_name(argument, 8, name)
    fcntl.ioctl(directory, SUBVOL_CREATE, argument)


def remove(directory: int, name: str) -> None:
    """Remove the subvolume @name in @directory, read-only or not, and all inside. Raises OSError."""
    try:
        _destroy(directory, name)
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:
            raise
        _remove_nested(directory, name)
        _destroy(directory, name)


def _destroy(directory: int, name: str) -> None:
    argument = bytearray(ARGUMENT)
    _put_name(argument, 8, name)
    fcntl.ioctl(directory, SNAP_DESTROY, argument)


def _remove_nested(directory: int, name: str) -> None:
    with opened_beneath(directory, name) as fd:
        inner = nested(fd)
        for path in ("", *inner):
            with opened_beneath(fd, path) as one:
                # Else what is inside cannot be removed from it.
                set_read_only(one, False)
        for path in reversed(inner):
            above, _, last = path.rpartition("/")
            with opened_beneath(fd, above) as parent:
                _destroy(parent, last)


def _put_name(argument: bytearray, offset: int, name: str) -> None:
    data = os.fsencode(name)
    if not 0 < len(data) < 256 or b"/" in data:
        raise OSError(errno.EINVAL, "not the name of a subvolume", name)
    argument[offset : offset + len(data)] = data


def nested(fd: int) -> list[str]:
    """Paths of all subvolumes inside the subvolume @fd, each before those inside it. OSError."""
    return sorted(_nested(fd, ""))


def _nested(fd: int, prefix: str) -> Iterator[str]:
    for path in _children(fd):
        yield prefix + path
        with opened_beneath(fd, path) as one:
            yield from _nested(one, f"{prefix}{path}/")


def _children(fd: int) -> list[str]:
    directories: set[int] = set()
    argument = bytearray(ARGUMENT)
    more = True
    while more:
        try:
            fcntl.ioctl(fd, GET_SUBVOL_ROOTREF, argument)
            more = False
        except OSError as error:
            # There are more: the argument says from where to go on.
            if error.errno != errno.EOVERFLOW:
                raise
        directories |= {
            struct.unpack_from("<QQ", argument, 8 + number * 16)[1]
            for number in range(argument[8 + MOST_REFERENCES * 16])
        }
    return [path for inode in directories for path in _roots_in(fd, inode)]


def _roots_in(fd: int, inode: int) -> list[str]:
    """Paths of the subvolumes in the directory with this number inside the subvolume @fd."""
    argument = bytearray(ARGUMENT)
    struct.pack_into("<QQ", argument, 0, 0, inode)
    fcntl.ioctl(fd, INO_LOOKUP, argument)
    prefix = os.fsdecode(bytes(argument[16:]).partition(b"\0")[0])
    with opened_beneath(fd, prefix) as directory, os.scandir(directory) as entries:
        return [
            prefix + entry.name
            for entry in entries
            if entry.is_dir(follow_symlinks=False)
            and entry.stat(follow_symlinks=False).st_ino == ROOT_INODE
        ]


@contextmanager
def opened_beneath(fd: int, path: str) -> Iterator[int]:
    """The directory @path in the directory @fd for a `with` block, "" is itself. Raises OSError."""
    found = native.open_beneath(fd, path or ".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield found
    finally:
        os.close(found)


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """The directory @path for a `with` block; a symbolic link is not followed. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def is_subvolume(path: Path) -> bool:
    """Whether @path is a subvolume that can be renamed: not where a file system is mounted."""
    try:
        return path.lstat().st_ino == ROOT_INODE and same_filesystem(path, path.parent)
    except OSError:
        return False


def same_filesystem(one: Path, other: Path) -> bool:
    """Whether both directories are of one btrfs, seen through one mount."""
    try:
        with opened(one) as first, opened(other) as second:
            found = filesystem(first)
            return found is not None and (found, _mount(first)) == (
                filesystem(second),
                _mount(second),
            )
    except OSError:
        return False


def _mount(fd: int) -> str:
    """The number of the mount through which @fd was opened."""
    lines = Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines()
    return next(line for line in lines if line.startswith("mnt_id:"))
