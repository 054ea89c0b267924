# SPDX-License-Identifier: LGPL-2.1-or-later
"""A second container that starts from an image of the first: its own name, network identity and files.

    LXCPATH/.NAME.lxc-cr/   while it is being made
    LXCPATH/NAME/           config and rootfs, by one rename

The image stays one; the clone refers to it as its own (Store.copy shares the files) only when it is not
started at once. What the processes have in memory they keep: a program that has asked for the host name
knows the old one.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from .config import CONTAINER_FILE
from .errors import ContainerError, HostError, os_message
from .snapshot.clone import copy_files, remove_files
from .trusted import sync

if TYPE_CHECKING:
    from .manifest import Manifest
    from .store import Image

# Inside the directory of the new container.
CONFIG, ROOTFS = "config", "rootfs"

# May be passed through, which the users of an unprivileged container have to, and not be listed.
MODE = 0o711

LINE = re.compile(r"\s*(?P<key>[a-z0-9_.]+)\s*=\s*(?P<value>.*?)\s*")

# Of these keys two containers cannot have the same value: another is chosen.
NAMES_OF_ENDS = re.compile(r"lxc\.net\.\d+\.veth\.pair")
ADDRESSES = re.compile(r"lxc\.net\.\d+\.hwaddr")

# LXC's own block of MAC addresses, as lxc-create gives them.
VENDOR = "00:16:3e"

# Files of the container that its configuration names: the clone gets its own.
FILES = ("lxc.seccomp.profile", "lxc.mount.fstab")


def make(image: Image, manifest: Manifest, *, name: str, lxcpath: Path) -> None:
    """Make container @name with the files and the configuration of @image; the name is locked.

    Raises ContainerError when there is one of that name, ImageError and HostError. Then nothing is left.
    """
    home = lxcpath / name
    if os.path.lexists(home):
        raise ContainerError(
            f"There is a container '{name}' in {lxcpath}", hint="Give the clone another name"
        )
    with _being_made(lxcpath / f".{name}.lxc-cr") as place:
        made = copy_files(image, manifest, target=place / ROOTFS)
        rootfs = made.replace(str(place / ROOTFS), str(home / ROOTFS))
        old = Path(manifest.container["lxcpath"], manifest.container["name"])
        text = edited(
            manifest.container["config"], name=name, rootfs=rootfs, old=old, new=home, place=place
        )
        (place / CONFIG).write_text(text, errors="surrogateescape")
        if (old / CONTAINER_FILE).is_file():
            shutil.copy2(old / CONTAINER_FILE, place / CONTAINER_FILE)
        for path in (place / CONFIG, place):
            sync(path)
        place.rename(home)
        sync(lxcpath)


@contextmanager
def _being_made(place: Path) -> Iterator[Path]:
    """An empty directory, that is gone afterwards unless it was renamed."""
    remove(place)  # of a command that was killed
    try:
        place.mkdir(mode=MODE)
        place.chmod(MODE)
        yield place
    except OSError as error:
        raise HostError(
            f"Failed to make the container in '{place.parent}': {os_message(error)}",
            errno=error.errno or 0,
        ) from error
    finally:
        remove(place)


def remove(home: Path) -> None:
    """Remove a container that was made, or what there is of it."""
    if home.is_dir():
        remove_files(home / ROOTFS)
        shutil.rmtree(home, ignore_errors=True)


def edited(text: str, *, name: str, rootfs: str, old: Path, new: Path, place: Path) -> str:
    """The configuration @text of the container in @old for the one that will be in @new.

    Files of @old that it needs are copied to @place, which will be @new.
    """
    lines = []
    named = False
    for line in text.splitlines():
        match = LINE.fullmatch(line)
        key, value = (match["key"], match["value"]) if match else ("", "")
        if key == "lxc.rootfs.path":
            line = f"{key} = {rootfs}"
        elif key == "lxc.uts.name":
            line, named = f"{key} = {name}", True
        elif ADDRESSES.fullmatch(key) and value:
            line = f"{key} = {new_address()}"
        elif NAMES_OF_ENDS.fullmatch(key):
            continue
        elif value.startswith(f"{old}/"):
            if key in FILES and Path(value).is_file():
                shutil.copy2(value, place / Path(value).name)
                line = f"{key} = {new / Path(value).name}"
            else:
                line = f"{key} = {new / Path(value).relative_to(old)}"
        lines.append(line)
    if not named:
        lines.append(f"lxc.uts.name = {name}")
    return "\n".join(lines) + "\n"


def new_address() -> str:
    """A random MAC address of LXC's own block."""
    return ":".join([VENDOR, *(f"{byte:02x}" for byte in os.urandom(3))])
