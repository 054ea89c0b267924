# SPDX-License-Identifier: LGPL-2.1-or-later
"""Snapshots of a root filesystem that is a subvolume of btrfs: one system call inside the stop.

The kernel leaves out the subvolumes inside: each is one more call, and gets the same place in the
snapshot. The list of files is made afterwards, from the read-only snapshot, and is the same as other backends
write: so images can be compared, verified, exported and copied whatever they were made of. To bring
the files back a new snapshot of the snapshot takes the place of the subvolume, in one rename; what
was there is kept until the restart has succeeded. Inode numbers stay, the device number does not.

    .NAME.lxc-cr/subvolume    a journal: which subvolume was there
    .NAME.lxc-cr/other        the one that is not in its place now
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import native
from ..errors import CheckpointError, HostError, ImageError, os_errors, os_message
from ..fault import point
from ..trusted import write_durably
from . import capture, of_image, rollback, subvolume, tree_backend
from . import kept as keeping
from .pointer import new_place, point_to, snapshot_of
from .tree import Tree

if TYPE_CHECKING:
    from ..manifest import Manifest
    from ..store import Image

JOURNAL = "subvolume"
OTHER = "other"

# Dirty pages are written by the snapshot itself, inside the stop: so often and so long before it
# what can be written earlier is.
ROUNDS = 4
SHORT = 0.03


class BtrfsBackend:
    """See `Backend`; the subvolume is @path."""

    name = "btrfs"

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def kept(self) -> Path:
        return keeping.kept_for(self._path)

    def capture(self, *, staging: Path, images: list[Image]) -> BtrfsCapture:
        return BtrfsCapture(self._path, staging=staging, known=tree_backend.known(images))

    def compare(self, image: Image, manifest: Manifest, *, full: bool) -> list[rollback.Change]:
        wanted = tree_backend.load(image, manifest)
        tree_backend.check_contents(image, manifest, full=False)
        place = snapshot_of(image.path)
        if place and not full and is_unchanged(self._path, place):
            return []
        with Tree(self._path) as tree:
            return rollback.compare(tree, wanted, full=full)

    def roll_back(self, image: Image, manifest: Manifest, changes: list[rollback.Change]) -> None:
        place = snapshot_of(image.path)
        inner = nested_of(manifest)
        if place and subvolume.same_filesystem(place.parent, self._path.parent):
            exchange(self._path, place, kept=self.kept, nested=inner)
            return
        # The image came from elsewhere, or was made of another sort of directory.
        wanted = tree_backend.load(image, manifest)
        contents = tree_backend.contents_of(image, wanted)

        def work(tree: Tree) -> None:
            rollback.bring_changes(tree, wanted, changes, contents)

        exchange(self._path, self._path, kept=self.kept, nested=inner, work=work)


class BtrfsCapture:
    """See `Capture`; the snapshot of the subvolume @path is noted in the directory @staging."""

    def __init__(self, path: Path, *, staging: Path, known: capture.Known) -> None:
        self._staging = staging
        self._known = known
        self._stood = 0
        self._read_only: frozenset[str] = frozenset()
        with ExitStack() as undo:
            self._tree = undo.enter_context(Tree(path))
            self._place = new_place(path)
            self._home = undo.enter_context(subvolume.opened(self._place.parent))
            self._scope = undo.pop_all()

    def prepare(self, *, check_space: Callable[[int], None]) -> None:
        check_space(0)
        point_to(self._staging, self._place)
        for _ in range(ROUNDS):
            begin = time.monotonic()
            self._tree.sync()
            if time.monotonic() - begin < SHORT:
                break

    def freeze(self) -> None:
        begin = time.monotonic_ns()
        with os_errors(CheckpointError, f"Failed to make a snapshot of '{self._tree.path}'"):
            self._read_only = subvolume.copy(self._tree.fd, self._home, self._place.name)
        self._stood = time.monotonic_ns() - begin

    def finish(self, *, ended: bool) -> dict[str, Any]:
        with Tree(self._place) as tree:
            inner = subvolume.nested(tree.fd)
            subvolume.seal(tree.fd, ["", *inner])
            look = capture.Capture(tree, target=None, known=self._known)
            look.prepare(check_space=lambda _need: None)
            look.freeze()
            # Nobody writes to a read-only snapshot, so what was seen is sure.
            taken = look.finish(ended=True)
            described = tree_backend.describe(
                taken, self._staging, backend="btrfs", stood=self._stood
            )
            described["snapshot"] = subvolume.info(tree.fd).uuid.hex()
            if inner:
                described["nested"] = self._describe(tree, inner)
        return described

    def _describe(self, tree: Tree, inner: list[str]) -> list[dict[str, Any]]:
        """What the manifest says of the subvolumes inside."""
        found = []
        for path in inner:
            with subvolume.opened_beneath(tree.fd, path) as one:
                uuid = subvolume.info(one).uuid.hex()
            found.append({"path": path, "snapshot": uuid, "read_only": path in self._read_only})
        return found

    def abandon(self) -> None:
        # The snapshot goes with the staging directory that points to it.
        self._scope.close()


def is_unchanged(path: Path, place: Path) -> bool:
    """Whether nothing was changed in the subvolume @path since it and the snapshot @place were one.

    Either the snapshot was made of it, or it was made of the snapshot; each changed transaction moves
    its generation, once dirty pages are written. To put one inside another changes that one: where
    there are some, what was made of the snapshot is not known to be unchanged.
    """
    with subvolume.opened(path) as ours, subvolume.opened(place) as theirs:
        native.sync_filesystem(ours)
        inner = subvolume.nested(ours)
        if inner != subvolume.nested(theirs):
            return False
        for one in ("", *inner):
            with (
                subvolume.opened_beneath(ours, one) as our,
                subvolume.opened_beneath(theirs, one) as their,
            ):
                if not _is_same(subvolume.info(our), subvolume.info(their)):
                    return False
    return True


def _is_same(now: subvolume.Info, then: subvolume.Info) -> bool:
    if now.uuid == then.parent:
        return now.generation <= then.made
    return now.parent == then.uuid and now.generation <= now.made


def check_snapshot(place: Path, described: dict[str, Any]) -> None:
    """Raise ImageError unless @place is the snapshot that the manifest describes."""
    wanted = {"": described.get("snapshot")}
    wanted |= {one["path"]: one["snapshot"] for one in described.get("nested", ())}
    try:
        with subvolume.opened(place) as fd:
            found = {
                path: _sealed_uuid(fd, path) for path in sorted({*wanted, *subvolume.nested(fd)})
            }
    except OSError as error:
        raise ImageError(
            f"Failed to look at the snapshot '{place}': {os_message(error)}",
            hint="The image is damaged: remove it, or restart with --files keep",
        ) from error
    if found != wanted:
        raise ImageError(
            f"'{place}' is not the snapshot that was made, or can be written to",
            hint="The image is damaged: remove it, or restart with --files keep",
        )


def _sealed_uuid(fd: int, path: str) -> str:
    """The uuid of the subvolume at @path in the open @fd, "" when it can be written to. OSError."""
    with subvolume.opened_beneath(fd, path) as one:
        return subvolume.info(one).uuid.hex() if subvolume.is_read_only(one) else ""


def nested_of(manifest: Manifest) -> dict[str, bool]:
    """Paths of the subvolumes inside the container's, and whether they were read-only."""
    described = of_image(manifest).get("nested", ())
    return {one["path"]: one["read_only"] for one in described}


def read_only_of(nested: dict[str, bool]) -> list[str]:
    """Those that were read-only, out of `nested_of`."""
    return [path for path, read_only in nested.items() if read_only]


def exchange(
    path: Path,
    place: Path,
    *,
    kept: Path,
    nested: dict[str, bool],
    work: Callable[[Tree], None] | None = None,
) -> None:
    """Put a snapshot of @place where the subvolume @path is; `undo` brings that back.

    @work changes the snapshot before it is in its place; directories that it makes at the paths
    @nested are subvolumes. Raises HostError when it fails half way: then `undo` has to follow.
    """
    rollback.discard(kept)
    with os_errors(HostError, f"Failed to put the snapshot in the place of '{path}'"):
        kept.mkdir(mode=0o700)
        with (
            subvolume.opened(path) as old,
            subvolume.opened(place) as source,
            subvolume.opened(kept) as directory,
            subvolume.opened(path.parent) as parent,
        ):
            point("keep")
            write_journal(kept, subvolume.info(old).uuid)
            point("kept")
            subvolume.copy(source, directory, OTHER)
            with Tree(kept / OTHER, subvolumes=frozenset(nested)) as tree:
                if work:
                    work(tree)
                    tree.sync()
                subvolume.seal(tree.fd, read_only_of(nested))
                keeping.note_brought(kept, tree)
            point("bring")
            native.exchange(directory, OTHER, parent, path.name)
            point("brought")


def write_journal(kept: Path, previous: bytes) -> None:
    """Note durably that @previous is the uuid of what was there."""
    write_durably(kept / JOURNAL, json.dumps({"previous": previous.hex()}).encode())


def undo(kept: Path, *, force: bool) -> bool:
    """Put back what was there before `exchange`; False when it still is.

    Unless @force, raises RestartError when what took its place was changed since.
    """
    members = json.loads((kept / JOURNAL).read_text())
    path = keeping.tree_of(kept)
    returned = False
    with subvolume.opened(kept) as directory, subvolume.opened(path.parent) as parent:
        if identity(kept / OTHER) == members["previous"]:
            if not force:
                keeping.refuse_changed(kept)
            native.exchange(directory, OTHER, parent, path.name)
            point("undone")
            native.sync_filesystem(parent)
            returned = True
    settle(kept)
    return returned


def settle(kept: Path) -> None:
    """Let stay what is in its place, and forget the other one."""
    with subvolume.opened(kept) as directory:
        if identity(kept / OTHER):
            native.sync_filesystem(directory)
            subvolume.remove(directory, OTHER)
            point("settle")
    (kept / JOURNAL).unlink()
    rollback.discard(kept)


def identity(path: Path) -> str:
    """The uuid of the subvolume @path; "" when there is none."""
    try:
        with subvolume.opened(path) as fd:
            return subvolume.info(fd).uuid.hex()
    except FileNotFoundError:
        return ""
