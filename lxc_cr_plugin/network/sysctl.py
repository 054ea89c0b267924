# SPDX-License-Identifier: LGPL-2.1-or-later
"""Settings of the calling thread's network namespace: /proc/sys/net shows those of who reads it."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import resource
from collections.abc import Iterable
from contextlib import ExitStack, suppress
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

# What routers advertise becomes the setting of an interface. The kernel tells of the times only, and of
# those each time: to read these few costs less than to listen, and then read everything.
ADVERTISED = re.compile(
    r"ipv6/conf/[^/]+/(hop_limit|mtu)"
    r"|ipv6/neigh/[^/]+/((retrans|base_reachable)_time(_ms)?|gc_stale_time)"
)

# No setting is longer.
LONGEST = 4096

# libnftables waits with select(2), which knows no descriptor from here on: it gets those below.
FD_SETSIZE = 1024

# For a kernel that does not know such programs.
UNKNOWN_HINT = "Boot a kernel that is built with CONFIG_CGROUP_BPF=y"

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
    # Here modules register: ip_vs, and its schedulers, in the last of them.
    places = (ROOT, ROOT / "netfilter", ROOT / "ipv4/vs")
    return sorted(path.name for place in places if place.is_dir() for path in place.iterdir())


class Settings:
    """The settings @names, open: to read them again takes a tenth of opening them. close() it.

    One that is gone, or cannot be read until it is set, is left out. With @aside their descriptors
    are not in the way of libnftables. `are_of_reader`: only a thread of the namespace may `take`.
    """

    def __init__(self, names: Iterable[str], *, aside: bool = True) -> None:
        self._fds: dict[str, int] = {}
        # Hundreds of them. Nothing but the engine inherits the limit: a container that this process
        # starts later would have it too, and its init for ever.
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        with ExitStack() as undo:
            undo.callback(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
            resource.setrlimit(resource.RLIMIT_NOFILE, (limits[1], limits[1]))
            undo.callback(self._close_files)
            for name in names:
                with suppress(FileNotFoundError, PermissionError):
                    fd = os.open(f"{ROOT}/{name}", os.O_RDONLY | os.O_CLOEXEC)
                    self._fds[name] = _above(fd) if aside else fd
            advertised = [name for name in self._fds if ADVERTISED.fullmatch(name)]
            others = [name for name in self._fds if not ADVERTISED.fullmatch(name)]
            self._advertised, self._others = self._part(advertised), self._part(others)
            self._scope = undo.pop_all()
        self.are_of_reader = any(name.startswith(OF_READER) for name in self._fds)

    def _part(self, names: list[str]) -> tuple[list[str], Reading]:
        return names, Reading([self._fds[name] for name in names], longest=LONGEST)

    def take(self) -> None:
        """Read them now, for `values`."""
        self._others[1].take()
        self.take_advertised()

    def take_advertised(self) -> None:
        """Read those that may be others though nobody has written one."""
        self._advertised[1].take()

    def values(self) -> dict[str, str]:
        """What each was when it was taken last."""
        return {
            name: content.decode(errors="replace").rstrip("\n")
            for names, reading in (self._advertised, self._others)
            for name, content in zip(names, reading.contents(), strict=True)
            if content is not None
        }

    def close(self) -> None:
        """Close them, and take the limit back."""
        self._scope.close()

    def _close_files(self) -> None:
        for fd in self._fds.values():
            os.close(fd)


def _above(fd: int) -> int:
    """@fd with a number that select(2) does not need, if this process may have so many."""
    with suppress(OSError):
        high = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, FD_SETSIZE)
        os.close(fd)
        return high
    return fd


def count_writes(pid: int, *, proc: Path = PROC) -> SettingWrites:
    """Counts who writes settings, process @pid among them. Raises HostError where nobody can."""
    try:
        lines = (proc / str(pid) / "cgroup").read_text().splitlines()
        # Seen from a cgroup namespace it may be elsewhere.
        if any(line.startswith("0::/") and not line.startswith("0::/..") for line in lines):
            for mount in mounts.read("self"):
                if mount.type == "cgroup2" and mount.root == "/":
                    return SettingWrites(mount.place)
    except OSError as error:
        raise HostError(
            f"BPF does not count who writes settings: {os_message(error)}",
            hint=UNKNOWN_HINT if error.errno == errno.EINVAL else None,
            errno=error.errno or 0,
        ) from error
    raise HostError(
        f"BPF does not count who writes settings: cgroup v2 with process {pid} in it is mounted nowhere",
        hint="mount -t cgroup2 none DIRECTORY",
    )


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
