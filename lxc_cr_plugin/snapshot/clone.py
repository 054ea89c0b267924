# SPDX-License-Identifier: LGPL-2.1-or-later
"""An independent copy of an image's files, as the root filesystem of another container.

Nothing of another container is needed but the lower layers of an overlay, which never change and are
shared.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import HostError, os_message
from . import Storage, backend_for, of_image, refuse_other_layout, rollback, subvolume, tree_backend
from .btrfs import nested_of, read_only_of
from .pointer import snapshot_of
from .source import Contents
from .tree import Tree

if TYPE_CHECKING:
    from ..manifest import Manifest
    from ..store import Image
    from .view import View


def copy_files(image: Image, manifest: Manifest, *, like: str, target: Path) -> str:
    """Make the directory @target with the files of @image; what to write as lxc.rootfs.path.

    @like is the root filesystem of the container that the new one is modelled on. Layers below the
    files are its layers: those that the image names could be any directory of this host.
    Its parent is there and belongs to the new container alone: an overlay keeps its work there.
    Contents are shared copy-on-write where the file system can. Durable when it returns; if anything
    raises, nothing is left. Raises ImageError for a damaged image, HostError when this host lacks
    something (a lower layer, room).
    """
    lowers = _lower_layers(manifest, like=like)
    wanted = tree_backend.load(image, manifest)
    tree_backend.check_contents(image, manifest, full=False)
    place = snapshot_of(image.path)
    try:
        if place and subvolume.same_filesystem(place.parent, target.parent):
            with subvolume.opened(place) as source, subvolume.opened(target.parent) as parent:
                subvolume.copy(source, parent, target.name)
            with subvolume.opened(target) as made:
                subvolume.seal(made, read_only_of(nested_of(manifest)))
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


def _lower_layers(manifest: Manifest, *, like: str) -> tuple[Path, ...]:
    """The layers below those files that the image holds."""
    refuse_other_layout(backend_for(like), manifest)
    return Storage.parse(like).paths[:-1] if of_image(manifest)["backend"] == "overlay" else ()
