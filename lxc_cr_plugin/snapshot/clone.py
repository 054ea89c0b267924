# SPDX-License-Identifier: LGPL-2.1-or-later
"""An independent copy of an image's files, as the root filesystem of another container.

Nothing of the container that the image was made of is needed, but the lower layers of an overlay,
which never change and are shared.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import HostError, ImageError, os_message
from . import Storage, of_image, rollback, subvolume, tree_backend
from .pointer import snapshot_of
from .source import Contents
from .tree import Tree

if TYPE_CHECKING:
    from ..manifest import Manifest
    from ..store import Image
    from .view import View


def copy_files(image: Image, manifest: Manifest, *, target: Path) -> str:
    """Make the directory @target with the files of @image; what to write as lxc.rootfs.path.

    Its parent is there and belongs to the new container alone: an overlay keeps its work there.
    Contents are shared copy-on-write where the file system can. Durable when it returns; if anything
    raises, nothing is left. Raises ImageError for a damaged image, HostError when this host lacks
    something (a lower layer, room).
    """
    lowers = _lower_layers(manifest)
    wanted = tree_backend.load(image, manifest)
    tree_backend.check_contents(image, manifest, full=False)
    place = snapshot_of(image.path)
    try:
        if place and subvolume.same_filesystem(place.parent, target.parent):
            with subvolume.opened(place) as source, subvolume.opened(target.parent) as parent:
                subvolume.snapshot(source, parent, target.name, read_only=False)
            return f"btrfs:{target}"
        _make_tree(target, wanted, tree_backend.contents_of(image, wanted))
    except BaseException as error:
        remove_files(target)
        if isinstance(error, OSError):
            raise HostError(
                f"Failed to copy the files of {image.reference()} to '{target}': "
                f"{os_message(error)}",
                errno=error.errno or 0,
            ) from error
        raise
    return ":".join(["overlay" if lowers else "dir", *map(str, lowers), str(target)])


def remove_files(target: Path) -> None:
    """Remove what `copy_files` has made at @target, as far as it came."""
    try:
        if subvolume.is_subvolume(target):
            with subvolume.opened(target.parent) as parent:
                subvolume.remove(parent, target.name)
    except OSError:
        pass  # file by file, then
    shutil.rmtree(target, ignore_errors=True)


def _make_tree(target: Path, wanted: View, contents: Contents) -> None:
    contents.verify(wanted.rows.values())
    target.mkdir(mode=0o700)
    with Tree(target) as tree:
        rollback.bring(tree, dict(wanted.rows), contents)
        tree.sync()


def _lower_layers(manifest: Manifest) -> tuple[Path, ...]:
    """The layers below those files that the image holds."""
    if of_image(manifest)["backend"] != "overlay":
        return ()
    lowers = Storage.parse(manifest.container["rootfs"]).paths[:-1]
    for path in lowers:
        if not path.is_dir():
            raise HostError(
                f"'{path}', a lower layer of the image's files, is not there",
                hint="Copy it to the same place from the host that the image was made on",
            )
    if not lowers:
        raise ImageError(
            f"The image does not say on which layers its files lie: '{manifest.container['rootfs']}'"
        )
    return lowers
