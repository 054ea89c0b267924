# SPDX-License-Identifier: LGPL-2.1-or-later
"""Keeping and taking away a tree that is where a file system is mounted, and cannot be renamed.

Nothing outside of it is on the same file system either. So there is a room in it, for as long as a
restart is not over: contents are kept there, and to take the tree away is to move its entries into
it, one by one. That can be cut off anywhere, and is done again from where it had come to.

    ROOT/.lxc-cr-kept         contents that were kept
    ROOT/.lxc-cr-kept/tree    the entries of ROOT, and its attributes

Who is root in the container may change all that, while it runs: so no path is followed through it.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .. import native
from ..errors import HostError, os_message
from ..native import mounts as native_mounts
from .tree import Scan, Tree

ROOM = ".lxc-cr-kept"
TREE = "tree"

# Without these no init starts: they go first and return last.
FIRST = ("sbin", "usr", "bin", "lib", "lib64")


def is_mount_point(path: Path) -> bool:
    """Whether the directory @path is the root of a mount. Raises OSError."""
    numbers = []
    for place in (path, path.parent):
        fd = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            numbers.append(native_mounts.identity(fd))
        finally:
            os.close(fd)
    return numbers[0] != numbers[1]


def make_room(root: Path) -> None:
    """Make an empty room in the tree @root, which looks as before. Raises OSError."""
    with Tree(root) as tree, _same_times(tree.fd):
        # Nobody but us may have one, whatever it is.
        shutil.rmtree(ROOM, ignore_errors=True, dir_fd=tree.fd)
        os.mkdir(ROOM, 0o700, dir_fd=tree.fd)


def remove_room(root: Path) -> None:
    """Remove the room with all that is in it, if it is there."""
    with Tree(root) as tree, _same_times(tree.fd):
        shutil.rmtree(ROOM, ignore_errors=True, dir_fd=tree.fd)


@contextmanager
def _same_times(fd: int) -> Iterator[None]:
    status = os.fstat(fd)
    yield
    os.utime(fd, ns=(status.st_atime_ns, status.st_mtime_ns))


@contextmanager
def _opened(root: Path) -> Iterator[tuple[Tree, int]]:
    """The tree @root and its room, a descriptor. Raises HostError when there is none of ours."""
    with Tree(root) as tree:
        try:
            room = tree.open(ROOM, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise HostError(
                f"Failed to open '{root / ROOM}', where the container's previous files are: "
                f"{os_message(error)}",
                hint=f"The file system that belongs at '{root}' has to be mounted",
            ) from error
        try:
            status = os.fstat(room)
            if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
                raise HostError(
                    f"'{root / ROOM}' is not a directory of root alone: what is in it is not followed",
                    hint="Somebody in the container has replaced it",
                )
            yield tree, room
        finally:
            os.close(room)


def check_room(root: Path) -> None:
    """Raise HostError unless the tree @root is there, with its room."""
    with _opened(root):
        pass


def away_tree(root: Path) -> Tree:
    """The entries of @root in its room. Raises HostError and OSError."""
    with _opened(root) as (_, room):
        return Tree(root / ROOM / TREE, fd=_open_tree(room))


def _open_tree(room: int) -> int:
    return native.open_beneath(room, TREE, os.O_RDONLY | os.O_DIRECTORY)


def take_away(root: Path, *, known: frozenset[str] | None) -> None:
    """Move the entries @known of @root, or all, into its room unless they are there. Raises OSError.

    What is not known was made after the others had been taken away.
    """
    with _opened(root) as (tree, room):
        with suppress(FileExistsError):
            os.mkdir(TREE, 0o700, dir_fd=room)
        with Tree(root / ROOM / TREE, fd=_open_tree(room)) as away:
            if not _in_order(away.fd):
                _copy_attributes(tree, away)
            for name in _in_order(tree.fd):
                if known is not None and name not in known:
                    continue
                # Else something has been made at its place since: `put_back` sees to that.
                if _is_free(away.fd, name):
                    with _same_times(away.fd):
                        _move(name, tree.fd, away.fd)
        tree.sync()


def put_back(root: Path) -> None:
    """The opposite: nothing is in the room's tree then, and the tree is gone. Raises OSError."""
    with _opened(root) as (tree, room):
        with suppress(FileNotFoundError), Tree(root / ROOM / TREE, fd=_open_tree(room)) as away:
            for name in reversed(_in_order(away.fd)):
                if not _is_free(tree.fd, name) and not _gives_way(tree.fd, name):
                    raise OSError(errno.EEXIST, "something else is at its place", f"/{name}")
                with _same_times(away.fd):
                    _move(name, away.fd, tree.fd)
            _copy_attributes(away, tree)
            tree.sync()
            os.rmdir(TREE, dir_fd=room)
        tree.sync()


def _in_order(fd: int) -> list[str]:
    with os.scandir(fd) as entries:
        names = [entry.name for entry in entries if entry.name != ROOM]
    return sorted(names, key=lambda name: (name not in FIRST, name))


def _is_free(fd: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=fd, follow_symlinks=False)
    except FileNotFoundError:
        return True
    return False


def _gives_way(fd: int, name: str) -> bool:
    """Remove an empty directory: a runtime makes those for its mounts, and nobody misses them."""
    try:
        os.rmdir(name, dir_fd=fd)
    except OSError:
        return False
    return True


def _move(name: str, source: int, target: int) -> None:
    os.rename(name, name, src_dir_fd=source, dst_dir_fd=target)


def _copy_attributes(source: Tree, target: Tree) -> None:
    status = os.fstat(source.fd)
    target.set_attributes(
        "",
        mode=status.st_mode,
        uid=status.st_uid,
        gid=status.st_gid,
        mtime=status.st_mtime_ns,
        xattrs=source.xattrs(""),
    )


def without_room(scan: Scan) -> Scan:
    """@scan without the room."""
    return {path: status for path, status in scan.items() if path.partition("/")[0] != ROOM}
