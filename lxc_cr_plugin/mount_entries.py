# SPDX-License-Identifier: LGPL-2.1-or-later
"""The mounts in a manifest: nothing that a checkpoint would not have written is believed.

Whoever forges an image chooses types, paths and options. So all entries are judged again by the rules
of a checkpoint, before the restart touches anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from . import remount
from .errors import ImageError
from .mount_table import MountTable

if TYPE_CHECKING:
    from .manifest import Manifest
    from .mounts import Mount


def refuse_forged(manifest: Manifest) -> None:
    """Raise ImageError unless all mounts of @manifest are such that a restart may make them."""
    listed = MountTable(remount.from_manifest(entry) for entry in manifest.mounts)
    for what in ("inside", "view"):
        if sum(bool(entry.get(what)) for entry in manifest.mounts) > remount.MOST:
            raise ImageError(
                f"The manifest is not valid: more than {remount.MOST} mounts have '{what}'"
            )
    if len({mount.id for mount in listed}) != len(listed):
        raise ImageError("The manifest is not valid: a mount is listed twice")
    for mount, entry in zip(listed, manifest.mounts, strict=True):
        reason = _why_not(mount, entry, listed)
        if reason:
            raise ImageError(
                f"The manifest is not valid: the mount '{mount.place}' ({mount.type}) could not be "
                f"made again: {reason}",
                hint="No checkpoint writes this: where does the image come from?",
            )


def _why_not(mount: Mount, entry: dict[str, Any], listed: Sequence[Mount]) -> str:
    if not all(map(_is_text_of_kernel, (*mount.propagation, *map(str, mount)))):
        return "no path and no option can be so"
    if not _is_plain(mount.place):
        return "it is at no plain absolute path"
    if entry.get("view") and (mount.type, mount.root) != ("tmpfs", "/"):
        return "only a tmpfs gets files back"
    return remount.why_not(mount, listed) if entry["inside"] else ""


def _is_text_of_kernel(text: str) -> bool:
    """Whether the kernel can have shown this."""
    try:
        return b"\0" not in text.encode(errors="surrogateescape")
    except UnicodeEncodeError:
        return False


def _is_plain(place: str) -> bool:
    path = PurePosixPath(place)
    return str(path) == place and not place.startswith("//") and ".." not in path.parts
