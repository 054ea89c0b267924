# SPDX-License-Identifier: LGPL-2.1-or-later
"""A container's file tree, looked at and changed without ever following what lies in it.

Whoever runs in the container can rename, link and replace everything here while we look. So a path
is only ever opened below the root by openat2(2), which stops at symbolic links and mounts, and every
other call takes the directory's descriptor and a single name.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .. import native
from ..errors import HostError, os_message
from ..native.tree_look import Status, TreeLook

# What lstat(2) says, however it was asked.
AnyStatus = os.stat_result | Status
Scan = dict[str, Status]

# What a path may turn into between two looks at a running container.
VANISHED = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV, errno.ESTALE)

# xfs shows ACLs a second time, in a form of its own that other file systems do not know.
SHADOWS = {"trusted.SGI_ACL_FILE", "trusted.SGI_ACL_DEFAULT"}


class Tree:
    """A directory and everything below it in the same mount; paths are relative, "" is it."""

    def __init__(
        self, path: Path, *, fd: int = -1, subvolumes: frozenset[str] = frozenset()
    ) -> None:
        """@fd: it is open already, here or elsewhere. Raises HostError when there is no such one.

        A directory that is made at one of @subvolumes is to be a subvolume of btrfs.
        """
        self.path = path
        self.subvolumes = subvolumes
        try:
            self.fd = (
                fd
                if fd >= 0
                else os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            )
        except OSError as error:
            raise HostError(f"Failed to open '{path}': {os_message(error)}") from error

    def __enter__(self) -> Tree:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)

    def look(self) -> TreeLook:
        """All paths as they are now; what vanishes meanwhile is left out. Raises OSError."""
        return TreeLook(self.fd)

    def scan(self) -> Scan:
        """The same, by path."""
        return dict(self.look().entries())

    def sync(self) -> None:
        """Wait until everything is on the disk."""
        native.sync_filesystem(self.fd)

    def open(self, path: str, flags: int, mode: int = 0) -> int:
        """A descriptor of @path; the caller closes it. Raises OSError."""
        return native.open_beneath(self.fd, path or ".", flags, mode)

    @contextmanager
    def opened(self, path: str, flags: int, mode: int = 0) -> Iterator[int]:
        """A descriptor of @path for a `with` block. Raises OSError."""
        fd = self.open(path, flags, mode)
        try:
            yield fd
        finally:
            os.close(fd)

    @contextmanager
    def parent(self, path: str) -> Iterator[tuple[int, str]]:
        """The directory of @path as a descriptor, and the name in it: what dir_fd= takes."""
        directory, _, name = path.rpartition("/")
        with self.opened(directory, os.O_PATH | os.O_DIRECTORY) as fd:
            yield fd, name or "."

    def status(self, path: str) -> os.stat_result | None:
        """What lstat(2) says, None when it is not there."""
        try:
            with self.opened(path, os.O_PATH) as fd:
                return os.fstat(fd)
        except OSError as error:
            _raise_unless_vanished(error)
            return None

    def xattrs(self, path: str) -> dict[str, bytes]:
        """All extended attributes: ACLs, capabilities, whiteouts of overlay are among them."""
        with self.opened(path, os.O_PATH) as fd:
            return _xattrs(f"/proc/self/fd/{fd}")

    def set_attributes(
        self, path: str, *, mode: int, uid: int, gid: int, mtime: int, xattrs: dict[str, bytes]
    ) -> None:
        """Give @path these attributes and no other extended ones; @mtime in nanoseconds."""
        with self.opened(path, os.O_PATH) as fd:
            # The magic link leads to the very file, be it a symbolic link itself.
            place = f"/proc/self/fd/{fd}"
            status = os.fstat(fd)
            if (status.st_uid, status.st_gid) != (uid, gid):
                os.chown(place, uid, gid)
            # Later: chown(2) takes set-user-id bits and capabilities away.
            if not stat.S_ISLNK(status.st_mode):
                Path(place).chmod(stat.S_IMODE(mode))
            present = _xattrs(place)
            for key in present.keys() - xattrs.keys():
                os.removexattr(place, key)
            for key, value in xattrs.items():
                if present.get(key) != value:
                    os.setxattr(place, key, value)
            os.utime(place, ns=(status.st_atime_ns, mtime))


def _xattrs(place: str) -> dict[str, bytes]:
    keys = sorted(set(os.listxattr(place)) - SHADOWS)
    return {key: os.getxattr(place, key) for key in keys}


def _raise_unless_vanished(error: OSError) -> None:
    if error.errno not in VANISHED:
        raise error
