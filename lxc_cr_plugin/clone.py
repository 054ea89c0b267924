# SPDX-License-Identifier: LGPL-2.1-or-later
"""A second container that starts from an image of the first: its own name, network identity and files.

    LXCPATH/.NAME.lxc-cr-clone/   while it is being made
    LXCPATH/NAME/                 config and rootfs, by one rename

The configuration is that of a container of this host, which root has written: hooks, mounts, devices
and lower layers give power over the host, and an image may come from anywhere. The image stays one; the
clone refers to it as its own (Store.copy shares the files) only when it is not started at once. What the
processes have in memory they keep: a program that has asked for the host name knows the old one.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .config import CONTAINER_FILE, FRESH, add_settings
from .errors import ContainerError, HostError, os_errors
from .session import open_container
from .snapshot import Storage
from .snapshot.clone import copy_files, remove_files
from .trusted import sync

if TYPE_CHECKING:
    from .container import Container
    from .manifest import Manifest
    from .network import Nic
    from .store import Image

# The name of what will be the new container, until it is complete, ends with it. Nothing else of lxc-cr
# may end so: what is found there is removed.
BEING_MADE = ".lxc-cr-clone"

# Inside the directory of the new container.
CONFIG, ROOTFS = "config", "rootfs"

# May be passed through, which the users of an unprivileged container have to, and not be listed.
MODE = 0o711

LINE = re.compile(r"\s*(?P<key>[a-z0-9_.-]+)\s*=\s*(?P<value>.*?)\s*")

# Of these keys two containers cannot have the same value. They may stand in a file that is included.
OWN = re.compile(r"lxc\.(rootfs\.path|uts\.name|net\.\d+\.(hwaddr|veth\.pair))")

# LXC's own block of MAC addresses, as lxc-create gives them.
VENDOR = "00:16:3e"

# Files of the container that its configuration names, and that LXC reads or runs: the clone gets its own.
FILES = re.compile(r"lxc\.(include|hook\.[a-z-]+|seccomp\.profile|mount\.fstab)")
INCLUDE = "lxc.include"

# What is mounted from the host both containers have, also if it lies beside the configuration.
MOUNT = "lxc.mount.entry"


class Move(NamedTuple):
    """Files of a container in @old are copied to @place, which will be @new."""

    old: Path
    new: Path
    place: Path


class Own(NamedTuple):
    """What a clone is to have of its own, besides what no two containers can share.

    `network`, config.FRESH or KEEP, says whether it has the addresses of the other one. `bridges` and
    `sources` are as for a restart.
    """

    network: str
    bridges: Mapping[str, str]
    sources: Mapping[str, str | None]
    settings: Mapping[str, Any]  # for the configuration file of lxc-cr beside the clone's


def make(
    image: Image, manifest: Manifest, *, like: Container, name: str, lxcpath: Path, own: Own
) -> None:
    """Make container @name with the files of @image, configured @like another; the name is locked.

    Raises ContainerError when there is one of that name, ImageError and HostError. Then nothing is left.
    """
    home = lxcpath / name
    if name.startswith("."):
        raise ContainerError(
            f"'{name}' would be a hidden directory in {lxcpath}",
            hint="Give the clone a name without a dot in front",
        )
    if os.path.lexists(home):
        raise ContainerError(
            f"There is a container '{name}' in {lxcpath}", hint="Give the clone another name"
        )
    with _being_made(lxcpath / f".{name}{BEING_MADE}") as place:
        made = copy_files(image, manifest, like=like.rootfs(), target=place / ROOTFS)
        rootfs = made.replace(str(place / ROOTFS), str(home / ROOTFS))
        move = Move(like.directory, home, place)
        if (like.directory / CONTAINER_FILE).is_file():
            shutil.copy2(like.directory / CONTAINER_FILE, place / CONTAINER_FILE)
        add_settings(place / CONTAINER_FILE, own.settings)
        mounts = "\n".join(mount_lines(like, own.sources))
        lines = [
            *_edited(f"{like.config_text()}\n{mounts}", move),
            *own_lines(name, rootfs, like.nics(), own),
        ]
        (place / CONFIG).write_text(_text(lines), errors="surrogateescape")
        for path in (place / CONFIG, place):
            sync(path)
        place.rename(home)
        sync(lxcpath)
    try:
        _refuse_other_files(name, lxcpath=lxcpath, rootfs=home / ROOTFS)
    except BaseException:
        remove(home)
        raise


def source_of(configuration: Container) -> Container:
    """@configuration itself; raises ContainerError when there is no such container here."""
    if not configuration.defined():
        raise ContainerError(
            f"There is no container '{configuration.name}' in {configuration.lxcpath} whose "
            "configuration a clone could have",
            hint="Name another one: --like CONTAINER. What an image says of hooks, mounts and "
            "devices is never taken, because it may come from anywhere",
        )
    return configuration


def _refuse_other_files(name: str, *, lxcpath: Path, rootfs: Path) -> None:
    """Raise HostError unless LXC reads the configuration of clone @name as having @rootfs."""
    clone = open_container(name, str(lxcpath))
    found = Storage.parse(clone.rootfs()).paths
    if not clone.defined() or found[-1] != rootfs:
        raise HostError(
            f"LXC reads the configuration of the clone '{name}' as having its files in "
            f"'{clone.rootfs()}' and not in '{rootfs}'",
            hint="Does its configuration include a file that LXC does not understand?",
        )


@contextmanager
def _being_made(place: Path) -> Iterator[Path]:
    """An empty directory, that is gone afterwards unless it was renamed.

    Whoever makes one holds its lock, and so what killed commands have left is told from it.
    """
    try:
        with (
            os_errors(HostError, f"Failed to make the container in '{place.parent}'"),
            ExitStack() as held,
        ):
            with _locked(place.parent):
                for left in place.parent.glob(f".*{BEING_MADE}"):
                    _sweep(left)
                place.mkdir(mode=MODE)
                held.enter_context(_locked(place))
            place.chmod(MODE)
            yield place
    finally:
        remove(place)


@contextmanager
def _locked(directory: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold the lock of @directory; without @wait BlockingIOError when somebody else has it."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(fd)


def _sweep(place: Path) -> None:
    """Remove what a command was making at @place, if it was killed."""
    with suppress(OSError), _locked(place, wait=False):
        remove(place)


def remove(home: Path) -> None:
    """Remove a container that was made, or what there is of it."""
    if home.is_dir():
        remove_files(home / ROOTFS)
        shutil.rmtree(home, ignore_errors=True)


def mount_lines(like: Container, sources: Mapping[str, str | None]) -> Iterator[str]:
    """What is mounted from the host, when it is not all the same as in the configuration of @like."""
    if sources:
        yield f"{MOUNT} ="
        yield "lxc.mount.fstab = /dev/null"  # LXC does not take nothing
        for line in like.mount_lines(sources):
            yield f"{MOUNT} = {line}"


def own_lines(name: str, rootfs: str, nics: Iterable[Nic], own: Own) -> Iterator[str]:
    """What only the clone @name has: the end of its configuration, because the last line counts."""
    yield f"lxc.rootfs.path = {rootfs}"
    yield f"lxc.uts.name = {name}"
    for nic in nics:
        if nic.address:
            yield f"{nic.key('hwaddr')} = {new_address()}"
        if nic.pair:
            yield f"{nic.key('veth.pair')} ="  # whatever the kernel gives
        for member in nic.static if own.network == FRESH else ():
            yield f"{nic.key(member)} ="
        bridge = own.bridges.get(nic.name) or own.bridges.get(nic.link)
        if bridge:
            yield f"{nic.key('link')} = {bridge}"


def _edited(text: str, move: Move) -> Iterator[str]:
    """The lines of a configuration without what only one container can have."""
    for line in text.split("\n"):
        match = LINE.fullmatch(line)
        key, value = (match["key"], match["value"]) if match else ("", "")
        if OWN.fullmatch(key):
            continue
        first, blank, rest = value.partition(" ")
        if first.startswith(f"{move.old}/") and ".." not in Path(first).parts:
            line = f"{key} = {_moved(key, Path(first), move)}{blank}{rest}"
        yield line


def _moved(key: str, source: Path, move: Move) -> Path:
    """Where the clone has what the container has at @source of its own directory."""
    inside = source.relative_to(move.old)
    if key == MOUNT and inside.parts[0] != ROOTFS:
        return source
    if FILES.fullmatch(key):
        _copy(source, move.place / inside, move if key == INCLUDE else None)
    return move.new / inside


def _copy(source: Path, target: Path, move: Move | None) -> None:
    """Copy what is there to be copied; with @move it is itself a configuration, or a directory of some."""
    if target.exists():
        return
    if source.is_dir():
        target.mkdir(mode=MODE, parents=True)
        for path in sorted(source.iterdir()):
            _copy(path, target / path.name, move)
    elif source.is_file():
        target.parent.mkdir(mode=MODE, parents=True, exist_ok=True)
        shutil.copy2(source, target)
        if move:
            text = source.read_text(errors="surrogateescape")
            target.write_text(_text(_edited(text, move)), errors="surrogateescape")


def _text(lines: Iterable[str]) -> str:
    return "\n".join(lines).rstrip("\n") + "\n"


def new_address() -> str:
    """A random MAC address of LXC's own block."""
    return ":".join([VENDOR, *(f"{byte:02x}" for byte in os.urandom(3))])
