# SPDX-License-Identifier: LGPL-2.1-or-later
"""A file tree as it is at one instant, most of it copied before that.

While the container runs everything is read that no earlier image knows. When all its tasks stand the
tree is looked at again, and only what has another stamp is read once more. The order is what makes a
stamp trustworthy: first lstat(2), then the dirty pages are written, then the content is copied. A
store into a mapping after that faults, because its page is clean, and moves ctime; a store into a
page that is dirty already would not. What is copied under the stop is not written first, that would
take too long: it gets no stamp, and the next one who needs it reads it again.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from .. import mounts, native
from ..errors import CheckpointError, os_message
from ..native.tree_look import TreeLook
from . import content
from .tree import VANISHED, AnyStatus, Scan, Tree
from .view import INLINE, Row, Stamp, View

# Kernels before 6.13 have a clock of a few milliseconds for ctime: what is younger is not believed.
RACY = 20_000_000

# From so many new contents on, one syncfs(2) is cheaper than a journal commit for each.
MANY = 16

# Of a lease that is being broken only what it is to become is shown; it keeps new readers out too.
LEASE = re.compile(
    r"\d+: LEASE +(?:ACTIVE +WRITE|BREAKING +\S+) +(\d+) ([0-9a-f]+):([0-9a-f]+):(\d+) "
)

# A file as far as lstat(2) tells it from another one or another state: inode, ctime, mtime, size, mode.
Key = tuple[int, int, int, int, int]

# The same in one tree: subvolumes of btrfs have the same numbers, each for itself, and a device each.
Place = tuple[int, Key]

# Who holds the lease of a file, by its device and inode.
Leases = dict[tuple[int, int], int]


class Known(NamedTuple):
    """What earlier images know: rows by the state they were seen in, and where contents lie.

    A state that one image has seen with different contents, in several subvolumes, is not among them.
    """

    rows: dict[Key, Row]
    contents: dict[bytes, Path]


class Reading(NamedTuple):
    """What was read of a file; @copy is a file with its content, hashed later."""

    xattrs: dict[str, bytes]
    data: bytes | None = None
    digest: bytes | None = None
    copy: Path | None = None
    sure: bool = True


def key_of(status: AnyStatus) -> Key:
    """The key of a file that lstat(2) describes so."""
    size = status.st_size if stat.S_ISREG(status.st_mode) else 0
    return (status.st_ino, status.st_ctime_ns, status.st_mtime_ns, size, status.st_mode)


def place_of(status: AnyStatus) -> Place:
    """The same in its tree."""
    return (status.st_dev, key_of(status))


def _inode_of(status: AnyStatus) -> tuple[int, int]:
    return (status.st_dev, status.st_ino)


def key_of_row(row: Row) -> Key | None:
    """The key under which @row was seen, None when nothing may be concluded from it."""
    if row.stamp is None:
        return None
    return (row.stamp.inode, row.stamp.ctime, row.mtime, row.size, row.mode)


class Capture:
    """One capture of @tree: `prepare`, `freeze` while all tasks stand, `finish`."""

    def __init__(
        self,
        tree: Tree,
        *,
        target: Path | None,
        known: Known,
        prefix: str = "new-",
    ) -> None:
        """Contents go to the directory @target; None: @tree itself keeps them, nobody writes there.

        There @prefix begins the names of what has no digest yet, in no other capture under way.
        """
        self._prefix = prefix
        self._tree = tree
        self._target = target
        self._known = known
        self._readings: dict[Place, Reading] = {}
        self._before: TreeLook | None = None
        self._now: TreeLook | None = None
        self._scan: Scan = {}
        self._believed_before = 0
        self._leases: Leases = {}
        self._device = device_of_locks(tree.fd)
        self._copies = 0

    def prepare(self, *, check_space: Callable[[int], None]) -> None:
        """Read what no image knows. Raises what @check_space does when it finds too little."""
        self._believed_before = time.time_ns() - RACY
        self._leases = leases()
        self._before = self._tree.look()
        found = list(self._before.entries())
        check_space(
            sum(
                status.st_blocks * 512
                for _, status in found
                if stat.S_ISREG(status.st_mode) and key_of(status) not in self._known.rows
            )
        )
        for number, (path, status) in enumerate(found):
            if not self._is_known(status) and not self._read(path, status, standing=False):
                self._before.forget(number)

    def rehearse(self) -> None:
        """Look at it as `freeze` does, which then finds all names and inodes in the kernel's caches."""
        self._tree.look()

    def freeze(self, held: Leases | None = None) -> None:
        """Take the tree of this instant. Nothing here may be slow. @held: leases(), if known."""
        self._leases = leases() if held is None else held
        self._now = self._tree.look()
        found: Iterable[tuple[str, AnyStatus]] = self._now.entries()
        if self._before:
            found = self._now.changed(self._before, since=self._believed_before)
        for path, status in found:
            if not self._is_known(status) or status.st_ctime_ns >= self._believed_before:
                self._read(path, status, standing=True)

    def finish(self, *, ended: bool) -> View:
        """Hash and name what was copied. With @ended no task runs any more, so all is as it was."""
        if self._now:
            self._scan = dict(self._now.entries())
        # What was read while it ran and is of another state by now is of no use.
        wanted = {place_of(status) for status in self._scan.values()}
        readings = {place: self._store(self._readings[place]) for place in wanted}
        self._tidy()
        names = Counter(map(_inode_of, self._scan.values()))
        groups = {inode: n + 1 for n, inode in enumerate(i for i in names if names[i] > 1)}
        return View.of(
            self._row(path, status, readings, link=groups.get(_inode_of(status), 0), ended=ended)
            for path, status in self._scan.items()
        )

    def _is_known(self, status: AnyStatus) -> bool:
        place = place_of(status)
        if place in self._readings:
            return True
        row = self._known.rows.get(key_of(status))
        if row is None:
            return False
        if self._target and row.digest and row.digest not in self._known.contents:
            return False
        self._readings[place] = Reading(row.xattrs, row.data, row.digest)
        return True

    def _read(self, path: str, status: AnyStatus, *, standing: bool) -> bool:
        """Read what is at @path; False when it is not there any more, unless all are @standing."""
        try:
            if stat.S_ISREG(status.st_mode):
                reading = self._read_regular(path, status, standing=standing)
            elif stat.S_ISLNK(status.st_mode):
                with self._tree.parent(path) as (fd, name):
                    target = os.fsencode(os.readlink(name, dir_fd=fd))
                reading = Reading(self._tree.xattrs(path), data=target)
            else:
                reading = Reading(self._tree.xattrs(path))
        except OSError as error:
            if error.errno in VANISHED and not standing:
                return False
            raise CheckpointError(
                f"Failed to read '{path}' of the container's files: {os_message(error)}",
                errno=error.errno or 0,
                hint=f"Somebody outside changes '{self._tree.path}'"
                if error.errno in VANISHED
                else None,
            ) from error
        self._readings[place_of(status)] = reading._replace(sure=not standing)
        return True

    def _read_regular(self, path: str, status: AnyStatus, *, standing: bool) -> Reading:
        """The content of a file that must still be what @status says, else ESTALE."""
        xattrs = self._tree.xattrs(path)
        fd = self._open(path, status)
        try:
            if not standing and self._target:
                native.write_back(fd)
            if status.st_size <= INLINE:
                data = os.pread(fd, INLINE + 1, 0)
                _raise_if_changed(fd, status, complete=len(data) == status.st_size)
                return Reading(xattrs, data=data)
            if self._target is None:
                return Reading(xattrs, digest=content.digest(fd, size=status.st_size))
            with self._new_copy(self._target) as (copy, target):
                content.copy(fd, target, size=status.st_size)
            _raise_if_changed(fd, status, complete=True)
            return Reading(xattrs, copy=copy)
        finally:
            os.close(fd)

    @contextmanager
    def _new_copy(self, directory: Path) -> Iterator[tuple[Path, int]]:
        """A new empty file for a content that has no name yet: its path, and open."""
        self._copies += 1
        copy = directory / f"{self._prefix}{self._copies}"
        fd = os.open(copy, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            yield copy, fd
        finally:
            os.close(fd)

    def _open(self, path: str, status: AnyStatus) -> int:
        """A descriptor to read @path by; a leased file is not opened, its holder has it open."""
        holder = self._leases.get((self._device, status.st_ino))
        if holder is not None:
            for link in Path(f"/proc/{holder}/fd").iterdir():
                held = link.stat()
                if (held.st_dev, held.st_ino) == (status.st_dev, status.st_ino):
                    return native.descriptor_of(holder, int(link.name))
            # Where subvolumes share a device it may as well be a file of another one.
            if status.st_dev == self._device:
                raise OSError(
                    errno.EBUSY, f"process {holder} has a lease on it that cannot be found"
                )
        # O_NONBLOCK: it may be a fifo by now, or a lease may be taken.
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOATIME | os.O_NOCTTY
        return self._open_regular(path, flags)

    def _open_regular(self, path: str, flags: int) -> int:
        """A descriptor of @path, which may be a device by now: to open one can do anything."""
        with self._tree.opened(path, os.O_PATH) as fd:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise OSError(errno.ESTALE, "it is changed right now")
            return os.open(f"/proc/self/fd/{fd}", flags | os.O_CLOEXEC)

    def _store(self, reading: Reading) -> Reading:
        """@reading with its content under its own name."""
        digest = reading.digest
        if reading.copy:
            fd = os.open(reading.copy, os.O_RDONLY | os.O_CLOEXEC)
            try:
                digest = content.digest(fd, size=os.fstat(fd).st_size)
            finally:
                os.close(fd)
        if self._target and digest and not (self._target / digest.hex()).exists():
            self._place(digest, reading, self._target / digest.hex())
        return reading._replace(digest=digest, copy=None)

    def _place(self, digest: bytes, reading: Reading, target: Path) -> None:
        """Give a content its name, as a link to an earlier image's file if there is one."""
        known = self._known.contents.get(digest)
        if known:
            try:
                os.link(known, target, follow_symlinks=False)
                return
            except OSError:
                pass  # another file system, or as many links as it allows
        if reading.copy:
            reading.copy.rename(target)
        elif known:
            _copy_file(known, target)

    def _tidy(self) -> None:
        """Make new contents durable, remove what is of no use."""
        if self._target is None:
            return
        if self._copies > MANY:
            fd = os.open(self._target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                native.sync_filesystem(fd)
            finally:
                os.close(fd)
        for leftover in self._target.glob(f"{self._prefix}*"):
            leftover.unlink()

    def _row(
        self,
        path: str,
        status: AnyStatus,
        readings: dict[Place, Reading],
        *,
        link: int,
        ended: bool,
    ) -> Row:
        reading = readings[place_of(status)]
        is_node = stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode)
        return Row(
            path=path,
            mode=status.st_mode,
            uid=status.st_uid,
            gid=status.st_gid,
            mtime=status.st_mtime_ns,
            rdev=status.st_rdev if is_node else 0,
            link=0 if stat.S_ISDIR(status.st_mode) else link,
            size=status.st_size if stat.S_ISREG(status.st_mode) else 0,
            data=reading.data,
            digest=reading.digest,
            xattrs=reading.xattrs,
            stamp=Stamp(status.st_ino, status.st_ctime_ns) if reading.sure or ended else None,
        )


def leases() -> Leases:
    """Files whose lease opening would break, or wait for, and who holds it."""
    found = {}
    for line in Path("/proc/locks").read_text().splitlines():
        match = LEASE.match(line)
        if match:
            pid, major, minor, inode = match.groups()
            device = os.makedev(int(major, 16), int(minor, 16))
            found[device, int(inode)] = int(pid)
    return found


def device_of_locks(fd: int) -> int:
    """The device of the file system of @fd as /proc/locks has it.

    That is the one of mountinfo: on btrfs each subvolume has an st_dev of its own.
    """
    info = Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines()
    mount = next(int(line.split()[1]) for line in info if line.startswith("mnt_id:"))
    # A mount inside the container is none of ours: a tmpfs, which has one device.
    devices = (entry.device for entry in mounts.read("self") if entry.id == mount)
    return next(devices, os.fstat(fd).st_dev)


def _raise_if_changed(fd: int, status: AnyStatus, *, complete: bool) -> None:
    if not complete or key_of(os.fstat(fd)) != key_of(status):
        raise OSError(errno.ESTALE, "it is changed right now")


def _copy_file(source: Path, target: Path) -> None:
    with source.open("rb") as old, target.open("xb") as new:
        target.chmod(0o600)
        content.copy(old.fileno(), new.fileno(), size=os.fstat(old.fileno()).st_size)
