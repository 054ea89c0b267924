# SPDX-License-Identifier: LGPL-2.1-or-later
"""Settings of the calling thread's network namespace: /proc/sys/net shows those of who reads it."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from .. import mounts
from ..errors import HostError, ImageError, os_message
from ..native.reading import Reading
from ..native.setting_writes import SettingWrites

PROC = Path("/proc")
ROOT = PROC / "sys/net"

# Commands and not settings, and what the kernel counts.
NO_SETTINGS = {"flush", "nf_conntrack_count", "dev_weight"}

# Written before the others of their directory: they write to all interfaces.
FIRST = ("/conf/all/", "/conf/default/")

# Up to Linux 6.12 some of these show those of whoever reads, not of who has opened them.
OF_READER = ("sctp/", "mptcp/", "rds/")

# No setting is longer.
LONGEST = 4096

# libnftables waits with select(2), which knows no descriptor from here on: it gets those below.
FD_SETSIZE = 1024

# What fails because the kernel has decided otherwise, or not on this interface.
HARMLESS = (errno.EINVAL, errno.ENOENT)


def paths() -> list[str]:
    """All settings that can be changed here, relative."""
    return [
        os.path.relpath(Path(directory) / name, ROOT)
        for directory, _, names in os.walk(ROOT)
        for name in names
        if name not in NO_SETTINGS and os.access(Path(directory) / name, os.R_OK | os.W_OK)
    ]


def modules() -> list[str]:
    """What tells whether settings have come or gone that belong to no interface, but to a module."""
    places = (ROOT, ROOT / "netfilter")
    return sorted(path.name for place in places if place.is_dir() for path in place.iterdir())


class Settings:
    """The settings @names, open: to read them again takes a tenth of opening them. close() it.

    One that is gone, or cannot be read until it is set, is left out. With @aside their descriptors
    are not in the way of libnftables. `are_of_reader`: only a thread of the namespace may `take`.
    """

    def __init__(self, names: Iterable[str], *, aside: bool = True) -> None:
        # Hundreds of them. Nothing but the engine inherits the limit: a container that this process
        # starts later would have it too, and its init for ever.
        self._limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (self._limits[1], self._limits[1]))
        self._fds = {}
        for name in names:
            with suppress(FileNotFoundError, PermissionError):
                fd = os.open(f"{ROOT}/{name}", os.O_RDONLY | os.O_CLOEXEC)
                self._fds[name] = _above(fd) if aside else fd
        self._reading = Reading(list(self._fds.values()), longest=LONGEST)
        self.are_of_reader = any(name.startswith(OF_READER) for name in self._fds)

    def take(self) -> None:
        """Read them now, for `values`."""
        self._reading.take()

    def values(self) -> dict[str, str]:
        """What they were when they were taken last."""
        return {
            name: content.decode(errors="replace").rstrip("\n")
            for name, content in zip(self._fds, self._reading.contents(), strict=True)
            if content is not None
        }

    def close(self) -> None:
        """Close them, and take the limit back."""
        for fd in self._fds.values():
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, self._limits)


def _above(fd: int) -> int:
    """@fd with a number that select(2) does not need, if this process may have so many."""
    with suppress(OSError):
        high = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, FD_SETSIZE)
        os.close(fd)
        return high
    return fd


def count_writes(pid: int, *, proc: Path = PROC) -> SettingWrites | None:
    """Counts who writes settings, process @pid among them; None where nobody can."""
    with suppress(OSError):
        lines = (proc / str(pid) / "cgroup").read_text().splitlines()
        # Seen from a cgroup namespace it may be elsewhere.
        if not any(line.startswith("0::/") and not line.startswith("0::/..") for line in lines):
            return None
        for mount in mounts.read("self"):
            if mount.type == "cgroup2" and mount.root == "/":
                return SettingWrites(mount.place)
    return None


def write(wanted: dict[str, str]) -> None:
    """Change what differs. Raises HostError when a setting stays another one."""
    for name in wanted:
        if name.startswith("/") or ".." in name.split("/"):
            raise ImageError(f"'{name}' is no setting of a network")
    # Some write to others: twice, and those that write to many first.
    order = sorted(wanted, key=lambda name: (not any(part in f"/{name}" for part in FIRST), name))
    settings = Settings(order, aside=False)
    try:
        for last in (False, True):
            settings.take()
            present = settings.values()
            for name in order:
                if name in present and present[name] != wanted[name]:
                    _write(name, wanted[name], last=last)
    finally:
        settings.close()


def _write(name: str, value: str, *, last: bool) -> None:
    try:
        fd = os.open(f"{ROOT}/{name}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)
    except OSError as error:
        if last and error.errno not in HARMLESS:
            raise HostError(
                f"Failed to set net/{name} of the container to '{value}': {os_message(error)}"
            ) from error
