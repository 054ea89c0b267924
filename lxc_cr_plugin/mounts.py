# SPDX-License-Identifier: LGPL-2.1-or-later
"""Mounts that were made inside a container after its start.

A restart lets the runtime make its mounts again. What somebody mounted inside later would be missing
then, so it stands in the way of a checkpoint. The kernel does not tell who made a mount: whatever
neither LXC makes by itself nor the container's configuration asks for was made inside.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from .errors import Obstacle
from .freezer import PROC

# What LXC mounts by itself, by place and type of file system.
RUNTIME = (
    (re.compile(r"/"), None),
    (re.compile(r"/proc(/.*)?"), {"proc", "tmpfs", "fuse.lxcfs"}),
    (re.compile(r"/sys(/.*)?"), {"sysfs", "cgroup", "cgroup2", "tmpfs", "fuse.lxcfs"}),
    (re.compile(r"/dev"), {"tmpfs", "devtmpfs"}),
    (re.compile(r"/dev/(\.lxc|lxc)(/.*)?"), None),
    (re.compile(r"/dev/pts"), {"devpts"}),
    (re.compile(r"/dev/(console|ptmx|tty\d*|full|null|random|urandom|zero)"), None),
)


class Mount(NamedTuple):
    """One line of /proc/PID/mountinfo, as far as it matters here."""

    place: str
    type: str


def obstacles(*, init_pid: int, configured: Iterable[str], proc: Path = PROC) -> list[Obstacle]:
    """Mounts that a restart would not bring back.

    @configured are the places that the container's configuration mounts, absolute or relative to
    its root.
    """
    places = {str(PurePosixPath("/") / place) for place in configured}
    text = (proc / str(init_pid) / "mountinfo").read_text(errors="surrogateescape")
    return [
        _obstacle(mount)
        for mount in _mounts(text)
        if mount.place not in places and not _is_of_runtime(mount)
    ]


def _mounts(text: str) -> Iterator[Mount]:
    for line in text.splitlines():
        fields, _, rest = line.partition(" - ")
        yield Mount(place=_unescape(fields.split(" ")[4]), type=rest.split(" ")[0])


def _unescape(text: str) -> str:
    """Blanks and backslashes in a path are octal in mountinfo."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def _is_of_runtime(mount: Mount) -> bool:
    return any(
        pattern.fullmatch(mount.place) and (types is None or mount.type in types)
        for pattern, types in RUNTIME
    )


def _obstacle(mount: Mount) -> Obstacle:
    return Obstacle(
        kind="unsupported",
        message=f"'{mount.place}' ({mount.type}) was mounted inside the container",
        hint=f"Unmount it, or let LXC mount it: lxc.mount.entry = ... {mount.place.lstrip('/')} "
        f"{mount.type} ...",
        object="mount",
    )
