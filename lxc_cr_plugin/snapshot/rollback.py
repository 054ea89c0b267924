# SPDX-License-Identifier: LGPL-2.1-or-later
"""Bringing a file tree back to a view, and back again if the restart fails.

Only what differs is touched, and a file that is there keeps its inode: programs compare inode numbers
(SQLite refuses to write to a database whose number has changed). Before anything is touched, the
previous state is kept in a directory beside the tree, as rows and contents: a copy of what will be
rewritten, a link to what will be removed. The journal there is durable by then, and to undo is to
bring the same paths to the rows in it, however far the first attempt has come. Meanwhile the tree is not
at its place (kept.py), so that nothing can run on half of it.

    .NAME.lxc-cr/journal     rows of every path that may be touched, as it was
    .NAME.lxc-cr/<digest>    contents; these names are numbers, nobody hashes them (or in mounted.py's room)
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from ..errors import HostError, os_errors
from ..fault import point
from ..trusted import sync
from . import content, subvolume
from . import kept as keeping
from .source import Contents
from .tree import AnyStatus, Scan, Tree
from .view import INLINE, Row, Stamp, View, decode_rows, encode_rows

JOURNAL = "journal"


class Change(NamedTuple):
    """One path that is not as in the view; `silent` when no program would notice."""

    path: str
    what: str
    silent: bool = False


def compare(tree: Tree, view: View, *, full: bool = False) -> list[Change]:
    """What differs between @tree and @view; with @full no stamp is believed, all is read."""
    scan = tree.scan()
    wanted, present = view.links(), _links(scan)
    changes = []
    for path in sorted(scan.keys() | view.rows.keys()):
        row, status = view.rows.get(path), scan.get(path)
        if row is None:
            changes.append(Change(path, "new"))
        elif status is None:
            changes.append(Change(path, "gone"))
        else:
            what = _difference(tree, row, status, full=full)
            if not what and wanted.get(path) != present.get(path):
                what = "links"
            if what:
                changes.append(Change(path, what, silent=what == "time" and _is_directory(status)))
    return changes


def _difference(tree: Tree, row: Row, status: AnyStatus, *, full: bool) -> str:
    """How a path that is there differs from its row; "" when it does not."""
    if row.stamp == (status.st_ino, status.st_ctime_ns) and not full:
        return ""
    if stat.S_IFMT(status.st_mode) != row.kind():
        return "type"
    if (status.st_mode, status.st_uid, status.st_gid) != (row.mode, row.uid, row.gid):
        return "attributes"
    if _rdev(status) != row.rdev:
        return "device"
    if tree.xattrs(row.path) != row.xattrs:
        return "extended attributes"
    if not _same_content(tree, row, status):
        return "content"
    return "time" if status.st_mtime_ns != row.mtime else ""


def _same_content(tree: Tree, row: Row, status: AnyStatus) -> bool:
    if row.kind() == stat.S_IFLNK:
        with tree.parent(row.path) as (fd, name):
            return os.fsencode(os.readlink(name, dir_fd=fd)) == row.data
    if row.kind() != stat.S_IFREG:
        return True
    if status.st_size != row.size:
        return False
    with tree.opened(row.path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOATIME) as fd:
        if row.data is not None:
            return os.pread(fd, INLINE + 1, 0) == row.data
        return content.digest(fd, size=row.size) == row.digest


def apply(tree: Tree, view: View, changes: list[Change], *, contents: Contents, kept: Path) -> None:
    """Bring all paths of @changes to @view, durably; `undo` brings them back until `discard` is called.

    Raises ImageError before anything is touched when the snapshot is damaged, HostError or OSError
    when it fails half way: then `undo` has to follow.
    """
    scan = tree.scan()
    target = _target(changes, view, scan, contents)
    with os_errors(HostError, f"Failed to bring '{tree.path}' back to the snapshot"):
        _keep(tree, scan, target, kept=kept)
        keeping.take_away(kept)
        with keeping.away_tree(kept) as away:
            bring(away, target, contents)
            away.sync()
        keeping.put_back(kept, brought=True)
        point("brought")


def bring_changes(tree: Tree, view: View, changes: list[Change], contents: Contents) -> None:
    """The same where nothing has to be kept. Raises ImageError and OSError."""
    bring(tree, _target(changes, view, tree.scan(), contents), contents)


def _target(
    changes: list[Change], view: View, scan: Scan, contents: Contents
) -> dict[str, Row | None]:
    """What the paths to touch are to become; the contents for it are what was written."""
    target = {path: view.rows.get(path) for path in _affected(changes, view, scan)}
    contents.verify(row for row in target.values() if row)
    return target


def _affected(changes: list[Change], view: View, scan: Scan) -> set[str]:
    """Paths to touch: what changed, all names of the same files, and the directories above."""
    paths = {change.path for change in changes}
    for links in (view.links(), _links(scan)):
        paths |= {name for path in list(paths) for name in links.get(path, ())}
    return paths | {path.rpartition("/")[0] for path in paths}


def _keep(tree: Tree, scan: Scan, target: dict[str, Row | None], *, kept: Path) -> None:
    """Write down what is at the paths of @target, durably."""
    discard(kept)
    keeping.begin(kept)
    room = keeping.room_of(kept)
    point("keep")
    before: dict[str, Row | None] = {}
    links = set()
    for path in sorted(target):
        status = scan.get(path)
        if status is None:
            before[path] = None
            continue
        name = None
        if stat.S_ISREG(status.st_mode):
            # Subvolumes of btrfs have the same numbers, each for itself.
            name = (status.st_dev << 64 | status.st_ino).to_bytes(32, "big")
            if not _keep_content(tree, path, status, target[path], place=room / name.hex()):
                links.add(name)
        before[path] = _row_of(tree, path, status, digest=name)
    journal = encode_rows(
        before,
        links=sorted(links),
        present=[os.fsencode(path) for path in scan],
    )
    new = kept / f"{JOURNAL}.new"
    new.write_bytes(journal)
    for place in {kept, room}:
        for file in place.iterdir():
            sync(file)
    for place in (room, room.parent):
        sync(place)
    new.rename(kept / JOURNAL)
    sync(kept)
    sync(kept.parent)
    point("kept")


def _keep_content(
    tree: Tree, path: str, status: AnyStatus, row: Row | None, *, place: Path
) -> bool:
    """Keep a file at @place: a copy if it will be rewritten (True), else the file itself."""
    if row is not None and _fits(row, status):
        _copy(tree, path, status, place=place)
        return True
    if place.exists():
        # Subvolumes of btrfs have the same numbers, each for itself.
        there = place.stat()
        return (there.st_dev, there.st_ino) != (status.st_dev, status.st_ino)
    try:
        with tree.parent(path) as (fd, name):
            os.link(name, place, src_dir_fd=fd, follow_symlinks=False)
    except OSError as error:
        # In a subvolume inside there are no links to what is outside.
        if error.errno != errno.EXDEV:
            raise
        _copy(tree, path, status, place=place)
        return True
    return False


def _copy(tree: Tree, path: str, status: AnyStatus, *, place: Path) -> None:
    with (
        tree.opened(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOATIME) as fd,
        place.open("xb") as copy,
    ):
        content.copy(fd, copy.fileno(), size=status.st_size)


def _row_of(tree: Tree, path: str, status: AnyStatus, *, digest: bytes | None) -> Row:
    data = None
    if stat.S_ISLNK(status.st_mode):
        with tree.parent(path) as (fd, name):
            data = os.fsencode(os.readlink(name, dir_fd=fd))
    return Row(
        path=path,
        mode=status.st_mode,
        uid=status.st_uid,
        gid=status.st_gid,
        mtime=status.st_mtime_ns,
        rdev=_rdev(status),
        link=0,
        size=status.st_size if digest else 0,
        data=data,
        digest=digest,
        xattrs=tree.xattrs(path),
        stamp=Stamp(status.st_ino, status.st_ctime_ns),
    )


def bring(tree: Tree, target: dict[str, Row | None], contents: Contents) -> None:
    """Make the paths of @target what their rows say, None: nothing. May be done again."""
    for path in sorted(target, reverse=True):
        row, status = target[path], tree.status(path)
        if status and not (row and _may_stay(row, status, contents)):
            _remove(tree, path, status)
    point("bring")
    made: dict[int, str] = {}
    rows = [row for path in sorted(target) if (row := target[path])]
    # First all room is given back: the way back must not need more than there was.
    for row in rows:
        if _is_filled(row, contents) and tree.status(row.path):
            with _opened_empty(tree, row):
                pass
    for row in rows:
        if row.link and row.link in made:
            _link_inside(tree, made[row.link], row.path)
        else:
            _make(tree, row, contents)
            made[row.link] = row.path
    # Directories last and from below: whatever is made in them moves their times.
    for row in reversed(rows):
        tree.set_attributes(
            row.path, mode=row.mode, uid=row.uid, gid=row.gid, mtime=row.mtime, xattrs=row.xattrs
        )


def _is_filled(row: Row, contents: Contents) -> bool:
    """Whether the content of @row is written to the file, and the file not a link to it."""
    return row.kind() == stat.S_IFREG and row.digest not in contents.links


def _may_stay(row: Row, status: AnyStatus, contents: Contents) -> bool:
    if row.digest in contents.links:
        return status.st_ino == contents.path(row.digest or b"").stat().st_ino
    return _fits(row, status)


def _fits(row: Row, status: AnyStatus) -> bool:
    """Whether what is there can become @row and stay the same inode."""
    if stat.S_ISDIR(status.st_mode):
        return row.kind() == stat.S_IFDIR
    # A symbolic link cannot be changed. A file with several names may have one in another tree:
    # nobody asked us to change that.
    return (
        stat.S_IFMT(status.st_mode) == row.kind() != stat.S_IFLNK
        and row.rdev == _rdev(status)
        and not row.link
        and status.st_nlink == 1
    )


def _remove(tree: Tree, path: str, status: AnyStatus) -> None:
    with tree.parent(path) as (fd, name):
        if _is_directory(status):
            os.rmdir(name, dir_fd=fd)
        else:
            os.unlink(name, dir_fd=fd)


def _link_inside(tree: Tree, old: str, new: str) -> None:
    with tree.parent(old) as (from_fd, from_name), tree.parent(new) as (to_fd, to_name):
        os.link(from_name, to_name, src_dir_fd=from_fd, dst_dir_fd=to_fd, follow_symlinks=False)


def _link_kept(kept: Path, name: str, directory: int) -> None:
    """Whoever may write to where it is kept may have put something else in its place."""
    os.link(kept, name, dst_dir_fd=directory, follow_symlinks=False)
    if not stat.S_ISREG(os.lstat(name, dir_fd=directory).st_mode):
        os.unlink(name, dir_fd=directory)
        raise OSError(errno.EINVAL, "It is not a file any more", str(kept))


def _make(tree: Tree, row: Row, contents: Contents) -> None:
    """Make what @row says, with any attributes; a directory or file that may stay is there."""
    with tree.parent(row.path) as (fd, name):
        present = tree.status(row.path) is not None
        if row.kind() == stat.S_IFREG:
            if _is_filled(row, contents):
                _fill(tree, row, contents)
            elif not present:
                _link_kept(contents.path(row.digest or b""), name, fd)
        elif present:
            return
        elif row.kind() == stat.S_IFDIR and row.path in tree.subvolumes:
            with tree.opened(row.path.rpartition("/")[0], os.O_RDONLY | os.O_DIRECTORY) as above:
                subvolume.create(above, name)
        elif row.kind() == stat.S_IFDIR:
            os.mkdir(name, 0o700, dir_fd=fd)
        elif row.kind() == stat.S_IFLNK:
            os.symlink(row.data or b"", os.fsencode(name), dir_fd=fd)
        else:
            os.mknod(name, row.kind() | 0o600, row.rdev, dir_fd=fd)


def _fill(tree: Tree, row: Row, contents: Contents) -> None:
    with _opened_empty(tree, row) as fd:
        if row.digest is None:
            os.pwrite(fd, row.data or b"", 0)
            return
        with contents.opened(row.digest) as source:
            content.copy(source, fd, size=row.size)


@contextmanager
def _opened_empty(tree: Tree, row: Row) -> Iterator[int]:
    """The regular file of @row for writing, made or emptied."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY
    with tree.opened(row.path, flags, 0o600) as fd:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EBUSY, "somebody else changes it", row.path)
        os.ftruncate(fd, 0)
        yield fd


def undo(kept: Path, *, force: bool) -> bool:
    """Bring the tree back to what was kept in @kept; False when nothing had been touched.

    Unless @force, raises RestartError when the tree was changed since it was brought.
    """
    found = _read_journal(kept)
    touched = found is not None and (keeping.is_away(kept) or keeping.is_brought(kept))
    if found and touched:
        room = keeping.room_of(kept)
        if not keeping.is_away(kept) and not force:
            keeping.refuse_changed(kept)
        keeping.take_away(kept, present=found.present | found.rows.keys())
        # From here on there are no stamps by which a change could be told: and no place to change.
        keeping.forget_brought(kept)
        with keeping.away_tree(kept) as tree:
            # What processes made that ran for an instant before the restart failed.
            appeared = tree.scan().keys() - found.present - found.rows.keys()
            bring(tree, {**found.rows, **dict.fromkeys(appeared)}, Contents(room, found.links))
            point("undone")
            # Durable before the only other copy goes.
            tree.sync()
        keeping.put_back(kept)
    discard(kept)
    return touched


def settle(kept: Path) -> None:
    """Let the new state stay: make it durable, and forget what was kept in @kept."""
    if (kept / JOURNAL).exists():
        keeping.room_of(kept)
        with Tree(keeping.tree_of(kept)) as tree:
            tree.sync()
    discard(kept)


class Journal(NamedTuple):
    """What was kept: rows of what may be touched, all paths that were `present`."""

    rows: dict[str, Row | None]
    links: frozenset[bytes]
    present: frozenset[str]


def _read_journal(kept: Path) -> Journal | None:
    try:
        data = (kept / JOURNAL).read_bytes()
    except FileNotFoundError:
        return None
    rows, members = decode_rows(data)
    return Journal(
        rows=rows,
        links=frozenset(members["links"]),
        present=frozenset(os.fsdecode(path) for path in members["present"]),
    )


def discard(kept: Path) -> None:
    """Forget what was kept in @kept, if it is there. The journal first: it is what counts.

    Raises HostError when the tree itself is there.
    """
    if keeping.is_away(kept):
        raise HostError(
            f"The container's files are in '{keeping.where_away(kept)}'",
            hint=f"Move that to '{keeping.tree_of(kept)}'",
        )
    (kept / JOURNAL).unlink(missing_ok=True)
    point("settle")
    keeping.end(kept)


def _links(scan: Scan) -> dict[str, frozenset[str]]:
    groups: dict[tuple[int, int], list[str]] = {}
    for path, status in scan.items():
        if status.st_nlink > 1 and not _is_directory(status):
            groups.setdefault((status.st_dev, status.st_ino), []).append(path)
    return {path: frozenset(paths) for paths in groups.values() if len(paths) > 1 for path in paths}


def _is_directory(status: AnyStatus) -> bool:
    return stat.S_ISDIR(status.st_mode)


def _rdev(status: AnyStatus) -> int:
    is_node = stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode)
    return status.st_rdev if is_node else 0
