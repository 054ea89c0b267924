# SPDX-License-Identifier: LGPL-2.1-or-later
"""The container's files as they were at the instant of the image: taken, compared, brought back.

Which backend does it follows from how the runtime stores the root filesystem. `Backend` is what they
have in common; each is one file here.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ..errors import Cancelled, HostError, ImageError, LxcCrError, os_errors

if TYPE_CHECKING:
    from ..manifest import Manifest
    from ..store import Image
    from .rollback import Change

# What a checkpoint does about files, and what a restart does about files that were changed since.
SNAPSHOT, NONE = "snapshot", "none"
ROLLBACK, KEEP, REFUSE = "rollback", "keep", "refuse"


class Capture(Protocol):
    """A snapshot being taken."""

    def prepare(self, *, check_space: Callable[[int], None]) -> None:
        """Do beforehand what takes time, while the container runs."""

    def freeze(self) -> None:
        """Take the files of this instant; all tasks stand, so this has to be quick."""

    def finish(self, *, ended: bool) -> dict[str, Any]:
        """Complete it; the manifest's `rootfs`. With @ended no task will run any more."""

    def abandon(self) -> None:
        """Leave nothing behind; nothing happens after `finish`."""


class Backend(Protocol):
    """How the files of one container are stored.

    What a copy of an image for another container needs is not here, because it has no files yet:
    `copy_files` of clone.py makes them, `remove_files` there takes them away again.
    """

    name: str

    @property
    def kept(self) -> Path:
        """Where the previous state is kept during a restart: beside the files themselves."""

    def capture(self, *, staging: Path, images: list[Image]) -> Capture:
        """Begin a snapshot that belongs to the image in @staging; @images, newest first, help."""

    def compare(self, image: Image, manifest: Manifest, *, full: bool) -> list[Change]:
        """What differs between the files and the image's snapshot; nothing is touched."""

    def roll_back(self, image: Image, manifest: Manifest, changes: list[Change]) -> None:
        """Bring the files to the image's snapshot, the previous state goes to `kept`."""


class Storage(NamedTuple):
    """A root filesystem as the runtime names it: "overlay:/lower:/upper", or without the type."""

    type: str
    paths: tuple[Path, ...]

    @classmethod
    def parse(cls, rootfs: str) -> Storage:
        """What the runtime's notation means. LXC drops the type once it has read it."""
        name, colon, rest = rootfs.partition(":")
        if colon and "/" not in name:
            return cls(name, tuple(Path(path) for path in rest.split(":")))
        if Path(rootfs).is_dir():
            return cls("dir", (Path(rootfs),))
        layers = tuple(Path(path) for path in rootfs.split(":"))
        is_overlay = len(layers) > 1 and all(path.is_dir() for path in layers)
        return cls("overlay" if is_overlay else "", layers)


def backend_for(rootfs: str) -> Backend:
    """The backend for a root filesystem; raises HostError when there is none for it."""
    from .btrfs import BtrfsBackend
    from .subvolume import is_subvolume
    from .tree_backend import TreeBackend

    storage = Storage.parse(rootfs)
    if storage.type in ("dir", "btrfs") and is_subvolume(storage.paths[0]):
        return BtrfsBackend(storage.paths[0])
    if storage.type in ("dir", "btrfs"):
        return TreeBackend("dir", storage.paths[0])
    if storage.type in ("overlay", "overlayfs") and len(storage.paths) > 1:
        # The upper layer holds all that differs: whiteouts and attributes of overlayfs are a device
        # node and extended attributes like any other. The lower layers never change.
        return TreeBackend("overlay", storage.paths[-1])
    raise HostError(
        f"Snapshots of files are not possible on a root filesystem like '{rootfs}'",
        hint="Write --files none: then the files must be, at a restart, what they are now",
    )


def compare(backend: Backend, image: Image, manifest: Manifest, *, full: bool) -> list[Change]:
    """`Backend.compare`; raises HostError when the files cannot be read."""
    with os_errors(
        HostError,
        "Failed to compare the container's files with the snapshot",
        hint="Nothing was changed. What does the kernel's log (`dmesg`) say of the file system?",
    ):
        return backend.compare(image, manifest, full=full)


def kept_beside(rootfs: str) -> Path | None:
    """Where a restart keeps the previous state of these files, None when it cannot."""
    from .kept import kept_for

    try:
        return backend_for(rootfs).kept
    except Cancelled:
        raise
    except LxcCrError:
        # A restart that was cut off may have left them where no backend looks.
        kept = kept_for(Path(rootfs.rpartition(":")[2]))
        return kept if is_away(kept) else None


def repair(kept: Path, *, confirmed: bool | None) -> str:
    """End what a restart had begun with files; what was done, for the user: "" is nothing.

    Once it was @confirmed that the processes run the new state stays, else the previous one returns.
    None: nobody knows any more, and what is in @kept decides. Raises RestartError when the files were
    changed since, so that somebody has to choose, HostError when @kept is not ours.
    """
    from . import btrfs, rollback
    from .kept import check_owner, is_confirmed

    if not os.path.lexists(kept):
        return ""
    check_owner(kept)
    keeper = btrfs if (kept / btrfs.JOURNAL).exists() else rollback
    with os_errors(
        HostError,
        f"Failed to bring the previous files back from '{kept}'",
        hint="They are still there: write `lxc-cr ls` when the reason is gone",
    ):
        if confirmed or (confirmed is None and is_confirmed(kept)):
            keeper.settle(kept)
            return "kept the files that its processes know"
        return "brought its files back" if keeper.undo(kept, force=confirmed is False) else ""


def is_confirmed(kept: Path) -> bool:
    """Whether @kept says that the processes run."""
    from .kept import is_confirmed as confirmed

    return confirmed(kept)


def is_away(kept: Path) -> bool:
    """Whether the files are in @kept instead of at their place: they are neither old nor new."""
    from .kept import is_away as away

    return away(kept)


def confirm(kept: Path) -> None:
    """Note durably in @kept, if it is there, that the processes run. Raises OSError."""
    from .kept import confirm as note

    note(kept)


def refuse_other_layout(backend: Backend, manifest: Manifest) -> None:
    """Raise ImageError when the image's files are not what @backend has: a layer is no tree."""
    theirs = of_image(manifest)["backend"]
    if (theirs == "overlay") != (backend.name == "overlay"):
        raise ImageError(
            f"The snapshot is of a root filesystem of type '{theirs}', the container's is of type "
            f"'{backend.name}'"
        )


def of_image(manifest: Manifest) -> dict[str, Any]:
    """The manifest's description of the snapshot; raises ImageError when there is none."""
    if manifest.rootfs is None:
        raise ImageError("The image was made with --files none: it knows nothing of files")
    return manifest.rootfs


def refuse_unreadable(rootfs: str) -> None:
    """Raise UnsupportedError or HostError where a root filesystem cannot be looked at whole."""
    from .tree import Tree

    path = Storage.parse(rootfs).paths[-1]
    with Tree(path) as tree, os_errors(HostError, f"Failed to look at the files in '{path}'"):
        tree.look()
