# SPDX-License-Identifier: LGPL-2.1-or-later
"""The snapshot of a subvolume that belongs to an image, and its end.

    IMAGE/.snapshot                          a file with the path of the snapshot
    DIRECTORY/.lxc-cr-snapshots/<random>     the snapshot, a read-only subvolume

The file is no part of the image: it never leaves this host, and the manifest tells by the snapshot's
uuid whether it is the right one. It is durable before there is a snapshot, so that a snapshot that no
file names cannot be; it is removed after it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path

from ..errors import HostError, StoreError, os_message
from ..manifest import POINTER
from ..trusted import sync, write_durably
from . import subvolume

HOME = ".lxc-cr-snapshots"


def snapshot_of(directory: Path) -> Path | None:
    """The snapshot that the image in @directory has, None when its files are in itself."""
    try:
        return Path(os.fsdecode((directory / POINTER).read_bytes()))
    except (FileNotFoundError, NotADirectoryError):
        return None


def point_to(directory: Path, place: Path) -> None:
    """Let the image in @directory have the snapshot @place, which is made afterwards."""
    from ..store import writing

    with writing(f"Failed to write '{directory / POINTER}'"):
        write_durably(directory / POINTER, os.fsencode(place))
        sync(directory.parent)


def release(directory: Path, *, others: Iterable[Path]) -> None:
    """Remove the snapshot of the image in @directory unless one of the images @others has it too.

    Raises StoreError when it cannot be removed.
    """
    place = snapshot_of(directory)
    if place and place.parent.name == HOME and place not in map(snapshot_of, others):
        try:
            with subvolume.opened(place.parent) as home:
                subvolume.remove(home, place.name)
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise StoreError(
                    f"Failed to remove the snapshot '{place}': {os_message(error)}",
                    hint=f"Who uses it? Afterwards: btrfs subvolume delete '{place}'",
                ) from error
    (directory / POINTER).unlink(missing_ok=True)


def new_place(rootfs: Path) -> Path:
    """Where a new snapshot of the subvolume @rootfs will lie: beside the container's directory.

    A runtime that destroys the container leaves it alone there. Raises HostError.
    """
    above = rootfs.parent
    if subvolume.same_filesystem(above, above.parent):
        above = above.parent
    home = above / HOME
    try:
        home.mkdir(mode=0o700, exist_ok=True)
        status = home.lstat()
    except OSError as error:
        raise HostError(f"Failed to make '{home}': {os_message(error)}") from error
    if home.is_symlink() or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise HostError(f"'{home}' is not a directory of root alone", hint="Look who made it")
    return home / os.urandom(8).hex()
