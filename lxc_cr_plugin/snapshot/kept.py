# SPDX-License-Identifier: LGPL-2.1-or-later
"""The directory that keeps the previous state of a container's files, and what it says by itself.

After a power cut nothing else is left to ask, and anything may have happened since: a plain start, weeks
of work. So whoever comes later finds here how far the restart had come, and undoes only what nobody
has built upon.

    .NAME.lxc-cr/tree         the tree itself, as long as it is neither old nor new: nothing starts from it
    .NAME.lxc-cr/mounted      it is where a file system is mounted, and "tree" just says that it is away
    .NAME.lxc-cr/brought      the new state is complete; a stamp of every path in it
    .NAME.lxc-cr/confirmed    its processes run, the new state counts
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

from ..errors import HostError, RestartError, os_message
from ..trusted import remove_durably, sync, write_durably
from . import mounted
from .tree import AnyStatus, Scan, Tree

AWAY, BROUGHT, CONFIRMED, MOUNTED = "tree", "brought", "confirmed", "mounted"
SUFFIX = ".lxc-cr"

# How many paths an error names.
SHOWN = 5


def kept_for(path: Path) -> Path:
    """Where the previous state of the tree @path is kept: beside it."""
    return path.with_name(f".{path.name}{SUFFIX}")


def tree_of(kept: Path) -> Path:
    """The tree that @kept belongs to: its name says so, nothing inside is asked."""
    return kept.with_name(kept.name.removeprefix(".").removesuffix(SUFFIX))


def check_owner(kept: Path) -> None:
    """Raise HostError unless @kept is a directory that only we can have filled."""
    status = kept.lstat()
    if (
        not stat.S_ISDIR(status.st_mode)
        or status.st_uid != os.geteuid()
        or stat.S_IMODE(status.st_mode) & 0o077
    ):
        raise HostError(
            f"'{kept}' is not a directory of root alone: what is in it is not followed",
            hint="Look who made it, and remove it",
        )


def begin(kept: Path) -> None:
    """Make the empty directory @kept, and where contents can be kept: `room_of`. Raises OSError."""
    kept.mkdir(mode=0o700)
    if mounted.is_mount_point(tree_of(kept)):
        write_durably(kept / MOUNTED, b"")
        mounted.make_room(tree_of(kept))


def end(kept: Path) -> None:
    """Remove @kept and all that was kept."""
    if (kept / MOUNTED).exists():
        mounted.remove_room(tree_of(kept))
    shutil.rmtree(kept, ignore_errors=True)


def room_of(kept: Path) -> Path:
    """Where contents are kept: on the file system of the tree. Raises HostError when it is not there."""
    if not (kept / MOUNTED).exists():
        return kept
    mounted.check_room(tree_of(kept))
    return tree_of(kept) / mounted.ROOM


def take_away(kept: Path, *, present: Iterable[str] = ()) -> None:
    """Take the tree from its place while it is neither old nor new, wholly. Raises OSError.

    @present are the paths that it has if it is away already, where that may be in part.
    """
    if (kept / MOUNTED).exists():
        known = frozenset(path.partition("/")[0] for path in present) if is_away(kept) else None
        # Before anything moves.
        write_durably(kept / AWAY, b"")
        mounted.take_away(tree_of(kept), known=known)
    elif not is_away(kept):
        _move(tree_of(kept), kept / AWAY, kept)


def away_tree(kept: Path) -> Tree:
    """The tree that was taken away."""
    if (kept / MOUNTED).exists():
        return mounted.away_tree(tree_of(kept))
    return Tree(kept / AWAY)


def put_back(kept: Path, *, brought: bool = False) -> None:
    """Let the tree be at its place again, durably. Raises HostError when something else is there.

    With @brought, `note_brought` is done as well, before the tree counts as back.
    """
    try:
        if (kept / MOUNTED).exists():
            mounted.put_back(tree_of(kept))
            if brought:
                # To be moved has changed what it notes.
                with Tree(tree_of(kept)) as tree:
                    note_brought(kept, tree)
            remove_durably(kept / AWAY)
            return
        if brought:
            with away_tree(kept) as tree:
                note_brought(kept, tree)
        _move(kept / AWAY, tree_of(kept), kept)
    except OSError as error:
        away = where_away(kept)
        raise HostError(
            f"Failed to move '{away}' back to '{tree_of(kept)}': {os_message(error)}"
            + (f": '{error.filename}'" if error.filename else ""),
            errno=error.errno or 0,
            hint=f"The container's files are in '{away}'. Look who made "
            f"'{tree_of(kept)}', move that elsewhere, and write `lxc-cr ls`",
        ) from error


def where_away(kept: Path) -> Path:
    """Where the tree is that was taken away, for the user."""
    if (kept / MOUNTED).exists():
        return tree_of(kept) / mounted.ROOM / mounted.TREE
    return kept / AWAY


def is_away(kept: Path) -> bool:
    """Whether the tree is not at its place."""
    return os.path.lexists(kept / AWAY)


def _move(source: Path, target: Path, kept: Path) -> None:
    source.rename(target)
    sync(kept)
    sync(kept.parent)


def note_brought(kept: Path, tree: Tree) -> None:
    """Note durably that the new state is complete in @tree, which is synced. Raises OSError."""
    import cbor2

    write_durably(kept / BROUGHT, cbor2.dumps(_stamps(tree.scan())))


def is_brought(kept: Path) -> bool:
    """Whether the new state was complete."""
    return (kept / BROUGHT).exists()


def forget_brought(kept: Path) -> None:
    """Note durably that the state is none that is complete."""
    remove_durably(kept / CONFIRMED)
    remove_durably(kept / BROUGHT)


def confirm(kept: Path) -> None:
    """Note durably that the processes of the new state run. Raises OSError."""
    if is_brought(kept):
        write_durably(kept / CONFIRMED, b"")


def is_confirmed(kept: Path) -> bool:
    """Whether the processes of the new state had been running."""
    return (kept / CONFIRMED).exists()


def refuse_changed(kept: Path) -> None:
    """Raise RestartError when the tree is not as it was brought: somebody has built upon it."""
    import cbor2

    noted = cbor2.loads((kept / BROUGHT).read_bytes())
    with Tree(tree_of(kept)) as tree:
        changed = _changes(_stamps(tree.scan()), noted)
    if changed:
        shown = ", ".join(f"/{os.fsdecode(path)}" for path in changed[:SHOWN])
        raise RestartError(
            f"A restart was cut off after it had brought '{tree_of(kept)}' back to an image, and "
            f"{len(changed)} files there were changed since: {shown}",
            hint="`lxc-cr repair NAME --keep` keeps the files as they are now; `lxc-cr repair NAME "
            "--undo` brings back those from before that restart, and drops these changes",
        )


def _stamps(scan: Scan) -> dict[bytes, list[int]]:
    scan = mounted.without_room(scan)
    return {os.fsencode(path): _stamp(status) for path, status in scan.items()}


def _stamp(status: AnyStatus) -> list[int]:
    # A runtime makes places for mounts: nobody misses an empty directory, so their times do not count.
    moved = 0 if stat.S_ISDIR(status.st_mode) else status.st_ctime_ns
    return [status.st_ino, status.st_mode, status.st_uid, status.st_gid, moved]


def _changes(now: Mapping[bytes, list[int]], noted: Mapping[bytes, list[int]]) -> list[bytes]:
    """Paths that are new, gone or other than noted, but for directories that are new."""
    return sorted(
        path
        for path in now.keys() | noted.keys()
        if now.get(path) != noted.get(path) and (path in noted or not stat.S_ISDIR(now[path][1]))
    )
