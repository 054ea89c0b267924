# SPDX-License-Identifier: LGPL-2.1-or-later
"""Snapshots of a plain directory: contents lie in the image itself.

    IMAGE/rootfs.cbor        the view: every path with its attributes and the digest of its content
    IMAGE/rootfs/<digest>    contents

A content that an earlier image holds is a hard link to it, so each image is complete, takes only the
room of what is new, and can be removed without asking any other.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import manifest as manifests
from ..errors import Cancelled, ImageError, LxcCrError, os_message
from . import capture, of_image, rollback, view, volatile
from . import kept as keeping
from .pointer import snapshot_of
from .source import Contents, TreeContents
from .tree import Tree

if TYPE_CHECKING:
    from ..manifest import Manifest
    from ..store import Image

VIEW = "rootfs.cbor"

# Each of these images is read at a checkpoint for what it knows.
HELPFUL_IMAGES = 2


class TreeBackend:
    """See `Backend`; the tree lies in the directory @path."""

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self._path = path

    @property
    def kept(self) -> Path:
        return keeping.kept_for(self._path)

    def capture(self, *, staging: Path, images: list[Image]) -> TreeCapture:
        return TreeCapture(self.name, self._path, staging=staging, known=known(images))

    def compare(self, image: Image, manifest: Manifest, *, full: bool) -> list[rollback.Change]:
        wanted = load(image, manifest)
        check_contents(image, manifest, full=False)
        with Tree(self._path) as tree:
            return rollback.compare(tree, wanted, full=full)

    def roll_back(self, image: Image, manifest: Manifest, changes: list[rollback.Change]) -> None:
        wanted = load(image, manifest)
        with Tree(self._path) as tree:
            rollback.apply(
                tree,
                wanted,
                changes,
                contents=contents_of(image, wanted),
                kept=self.kept,
            )


class TreeCapture:
    """See `Capture`; the snapshot goes to the directory @staging of the image."""

    def __init__(self, name: str, path: Path, *, staging: Path, known: capture.Known) -> None:
        self._name = name
        self._staging = staging
        self._stood = 0
        with ExitStack() as undo:
            tree = undo.enter_context(Tree(path))
            contents = staging / manifests.CONTENTS
            self._capture = capture.Capture(tree, target=contents, known=known)
            self._scope = undo.pop_all()

    def prepare(self, *, check_space: Callable[[int], None]) -> None:
        self._capture.prepare(check_space=check_space)

    def freeze(self) -> None:
        begin = time.monotonic_ns()
        self._capture.freeze()
        self._stood = time.monotonic_ns() - begin

    def finish(self, *, ended: bool) -> dict[str, Any]:
        taken = self._capture.finish(ended=ended)
        return describe(taken, self._staging, backend=self._name, stood=self._stood)

    def abandon(self) -> None:
        self._scope.close()


def describe(taken: view.View, staging: Path, *, backend: str, stood: int) -> dict[str, Any]:
    """Write the view of an image in @staging; the manifest's `rootfs` for it."""
    (staging / VIEW).write_bytes(taken.encode())
    return {
        "backend": backend,
        "view": taken.digest(),
        "entries": len(taken.rows),
        "size": taken.size(),
        "stood": stood,
    }


def contents_inside(image: Image, manifest: Manifest) -> dict[bytes, int]:
    """Digests and sizes of all contents that lie in the image itself."""
    found = {}
    for name in volatile.names(manifest):
        found.update(volatile.load(image, manifest, name).contents())
    if manifest.rootfs is not None and not snapshot_of(image.path):
        found.update(load(image, manifest).contents())
    return found


def load(image: Image, manifest: Manifest) -> view.View:
    """The view of @image; raises ImageError unless it is what the manifest says and complete."""
    described = of_image(manifest)
    entry = next((file for file in manifest.files if file.name == VIEW), None)
    if entry is None:
        raise ImageError(f"The manifest does not list '{VIEW}'")
    manifests.check_digest(image.path, entry)
    with manifests.reading(f"'{VIEW}' of the image"):
        data = (image.path / VIEW).read_bytes()
    found = view.decode(data)
    if found.digest() != described["view"]:
        raise ImageError("The list of files is not the one that the manifest names")
    if (image.path / manifests.IMPORTED).exists():
        # Stamps are of files on the host that made it: here they prove nothing, and may be forged so
        # that a file is taken for another one.
        return view.View({path: row._replace(stamp=None) for path, row in found.rows.items()})
    return found


def contents_of(image: Image, found: view.View) -> Contents:
    """Where the contents of @image are: in itself, or in the snapshot of a subvolume."""
    place = snapshot_of(image.path)
    if place:
        return TreeContents(place, found.rows)
    return Contents(image.path / manifests.CONTENTS)


def check_contents(image: Image, manifest: Manifest, *, full: bool) -> None:
    """Raise ImageError unless all contents are there with their sizes; @full reads them all."""
    from .btrfs import check_snapshot

    place = snapshot_of(image.path)
    if place and manifest.rootfs is not None:
        check_snapshot(place, manifest.rootfs)
    _check_files(image, manifest)
    if not full:
        return
    inside = Contents(image.path / manifests.CONTENTS)
    for name in volatile.names(manifest):
        inside.verify(volatile.load(image, manifest, name).rows.values())
    if manifest.rootfs is not None:
        found = load(image, manifest)
        contents_of(image, found).verify(found.rows.values())


def _check_files(image: Image, manifest: Manifest) -> None:
    contents = image.path / manifests.CONTENTS
    wanted = {digest.hex(): size for digest, size in contents_inside(image, manifest).items()}
    if not wanted and not contents.exists():
        return
    try:
        present = {path.name: path.lstat().st_size for path in contents.iterdir()}
    except OSError as error:
        raise ImageError(f"Failed to read the snapshot: {os_message(error)}") from error
    for name in sorted(wanted.keys() | present.keys()):
        if wanted.get(name) != present.get(name):
            state = "is missing" if name not in present else "does not belong there"
            if name in wanted and name in present:
                state = f"has {present[name]} bytes instead of {wanted[name]}"
            raise ImageError(
                f"The content '{manifests.CONTENTS}/{name}' {state}",
                hint="The image is damaged: remove it",
            )


def known(images: list[Image]) -> capture.Known:
    """What @images, newest first, know of the tree."""
    rows: dict[capture.Key, view.Row] = {}
    contents: dict[bytes, Path] = {}
    for image in images[:HELPFUL_IMAGES]:
        try:
            found = load(image, image.manifest())
        except Cancelled:
            raise
        except LxcCrError:
            continue  # it is no help, but it is no obstacle either
        for digest in found.contents():
            path = image.path / manifests.CONTENTS / digest.hex()
            if path.exists():
                contents.setdefault(digest, path)
        for key, row in unambiguous(found).items():
            rows.setdefault(key, row)
    return capture.Known(rows, contents)


def unambiguous(found: view.View) -> dict[capture.Key, view.Row]:
    """Rows by the state that they were seen in, without states that several contents had.

    Subvolumes have the same numbers, and what was made at the same tick of the clock the same times.
    """
    rows: dict[capture.Key, view.Row] = {}
    ambiguous = set()
    for row in found.rows.values():
        key = capture.key_of_row(row)
        if key is None:
            continue
        first = rows.setdefault(key, row)
        if first is not row and not first._replace(path=row.path).is_like(row):
            ambiguous.add(key)
    return {key: row for key, row in rows.items() if key not in ambiguous}
