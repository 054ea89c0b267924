# SPDX-License-Identifier: LGPL-2.1-or-later
"""Mounts that were made inside a container after its start.

A restart lets the runtime make its mounts again. What somebody mounted inside later would be missing
then, so it stands in the way of a checkpoint. The kernel does not tell who made a mount: whatever
neither LXC makes by itself nor the container's configuration asks for was made inside.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from .errors import Obstacle
from .freezer import PROC

# What LXC and lxcfs mount by themselves: exact places, and types of file system (None: any).
RUNTIME = (
    (re.compile(r"/"), None),
    (re.compile(r"/proc"), {"proc"}),
    (re.compile(r"/proc/(sys|sys/net|sysrq-trigger)"), {"proc"}),
    (re.compile(r"/proc/sys/kernel/random/boot_id"), {"tmpfs"}),
    (
        re.compile(
            r"/proc/(cpuinfo|diskstats|loadavg|meminfo|slabinfo|stat|swaps|uptime"
            r"|pressure/(cpu|io|memory))"
        ),
        {"fuse.lxcfs"},
    ),
    (re.compile(r"/sys|/sys/devices/virtual/net"), {"sysfs"}),
    (re.compile(r"/sys/devices/system/cpu(/online)?"), {"fuse.lxcfs"}),
    (re.compile(r"/sys/fs/cgroup"), {"tmpfs", "cgroup2"}),
    # below its controller when the container has no cgroup namespace
    (re.compile(r"/sys/fs/cgroup/[^/]+(/.+)?"), {"cgroup", "cgroup2", "fuse.lxcfs"}),
    (re.compile(r"/dev"), {"tmpfs", "devtmpfs"}),
    (re.compile(r"/dev/pts"), {"devpts"}),
    (re.compile(r"/dev/(lxc/)?(console|tty\d+)"), {"devpts"}),
    (re.compile(r"/dev/ptmx"), {"devpts"}),
    (re.compile(r"/dev/(full|null|random|tty|urandom|zero)"), None),
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
    text = (proc / str(init_pid) / "mountinfo").read_text(errors="surrogateescape")
    asked_for = Counter(str(PurePosixPath("/") / place) for place in configured)
    seen: Counter[str] = Counter()
    found = []
    for mount in _mounts(text):
        seen[mount.place] += 1
        # A second mount hides the first one, and would not come back.
        if seen[mount.place] > asked_for[mount.place] + _is_of_runtime(mount):
            found.append(_obstacle(mount, again=seen[mount.place] > 1))
    return found


def _mounts(text: str) -> Iterator[Mount]:
    for line in text.splitlines():
        fields, _, rest = line.partition(" - ")
        yield Mount(place=unescape(fields.split(" ")[4]), type=rest.split(" ")[0])


def unescape(text: str) -> str:
    """Blanks and backslashes in a path are octal in mountinfo and fstab(5)."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def _is_of_runtime(mount: Mount) -> bool:
    return any(
        pattern.fullmatch(mount.place) and (types is None or mount.type in types)
        for pattern, types in RUNTIME
    )


def _obstacle(mount: Mount, *, again: bool) -> Obstacle:
    return Obstacle(
        kind="unsupported",
        message=f"'{mount.place}' ({mount.type}) was mounted inside the container"
        + (", over what was there" if again else ""),
        hint=f"Unmount it, or let LXC mount it: lxc.mount.entry = ... {mount.place.lstrip('/')} "
        f"{mount.type} ...",
        object="mount",
    )
