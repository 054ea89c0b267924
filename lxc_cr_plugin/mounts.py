# SPDX-License-Identifier: LGPL-2.1-or-later
"""The mounts of a container: which of them its runtime makes at every start, and which others.

The kernel does not tell who made a mount: whatever neither LXC makes by itself nor the container's
configuration asks for was made inside, and remount.py makes it again. What cannot be made again
stands in the way of a checkpoint.
"""

from __future__ import annotations

import os
import re
import select
from collections import Counter
from collections.abc import Iterable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from . import remount
from .errors import CheckpointError, HostError, Obstacle, os_errors
from .freezer import PROC
from .mount_table import MountTable
from .native import mounts as native_mounts

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


# What these show comes from the kernel, not from a disk of the host.
OF_KERNEL = {"proc", "sysfs", "cgroup", "cgroup2", "devpts", "devtmpfs", "mqueue", "fuse.lxcfs"}


# These have no disk that would give them an identity.
IN_MEMORY = {"tmpfs", "ramfs"}


class Mount(NamedTuple):
    """One line of /proc/PID/mountinfo; `device` as st_dev has it."""

    id: int
    parent: int
    device: int
    root: str  # the directory of the file system that is mounted
    place: str
    options: str
    propagation: tuple[str, ...]
    type: str
    source: str
    super: str

    def groups(self) -> set[str]:
        """Numbers of the peer groups that it sends to or receives from."""
        words = (word.partition(":") for word in self.propagation)
        return {number for name, _, number in words if name in ("shared", "master")}


def read(pid: int | str, *, proc: Path = PROC) -> tuple[Mount, ...]:
    """The mounts that process @pid sees, in the order in which they were made."""
    return parse(table(pid, proc=proc))


def table(pid: int | str, *, proc: Path = PROC) -> bytes:
    """The same as the kernel tells it: to find out whether something has changed."""
    return (proc / str(pid) / "mountinfo").read_bytes()


class MountWatch:
    """The mounts that process @pid sees, as `text`, and whether there are others since. close() it.

    Raises CheckpointError when there is no such process any more. A glance, `changed`, is told what is
    mounted, moved, unmounted, and, by mount(2), remounted inside. Only `renew` finds another propagation,
    directories that were renamed or removed, and what was remounted by fsconfig(2) or through another
    mount namespace: the kernel wakes nobody who polls mountinfo for these.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._namespace = Path(f"/proc/{pid}/ns/mnt")
        self._changed = False
        self._poll = select.poll()
        with ExitStack() as undo, self._errors():
            path = Path(f"/proc/{pid}/mountinfo")
            self._file = undo.enter_context(path.open("rb", buffering=0))
            self._entered = self._look()
            self._poll.register(self._file, select.POLLPRI)
            self.text = self._file.readall()
            undo.pop_all()

    def changed(self) -> bool:
        """Whether the kernel says that something was changed, as far as it does."""
        # It says everything once.
        with self._errors():
            self._changed |= bool(self._poll.poll(0)) or self._look() != self._entered
        return self._changed

    def renew(self) -> bool:
        """Whether the mounts are others than in `text`. If not, `changed` is about what comes after this."""
        with self._errors():
            self._poll.poll(0)
            self._file.seek(0)
            self._changed = self._look() != self._entered or self._file.readall() != self.text
        return self._changed

    def close(self) -> None:
        """Watch no more."""
        self._file.close()

    def _look(self) -> int:
        return self._namespace.stat().st_ino

    def _errors(self) -> AbstractContextManager[None]:
        return os_errors(
            CheckpointError,
            f"Failed to look at the mounts of process {self._pid}, the container's init",
            hint="Has the container stopped?",
        )


def parse(data: bytes) -> tuple[Mount, ...]:
    """The mounts in a mountinfo. A name may hold what Python takes for the end of a line as well."""
    return tuple(_parse(os.fsdecode(line)) for line in data.split(b"\n") if line)


def _parse(line: str) -> Mount:
    fields, _, rest = line.partition(" - ")
    number, parent, device, root, place, options, *propagation = fields.split(" ")
    kind, source, more = rest.split(" ")[:3]
    major, minor = device.split(":")
    return Mount(
        id=int(number),
        parent=int(parent),
        device=os.makedev(int(major), int(minor)),
        root=unescape(root),
        place=unescape(place),
        options=options,
        propagation=tuple(word for word in propagation if word),
        type=kind,
        source=unescape(source),
        super=more,
    )


def made_inside(listed: Iterable[Mount], *, configured: Iterable[str]) -> list[Mount]:
    """Those of the mounts of a container that the runtime will not make by itself.

    @configured are the places that the container's configuration mounts, absolute or relative to
    its root.
    """
    asked_for = Counter(str(PurePosixPath("/") / place) for place in configured)
    seen: Counter[str] = Counter()
    found = []
    for mount in listed:
        seen[mount.place] += 1
        # A second mount hides the first one, and would not come back.
        if seen[mount.place] > asked_for[mount.place] + _is_of_runtime(mount):
            found.append(mount)
    return found


def obstacles(*, init_pid: int, configured: Iterable[str], proc: Path = PROC) -> list[Obstacle]:
    """Mounts that were made inside the container and cannot be made again."""
    listed = MountTable(read(init_pid, proc=proc))
    found = made_inside(listed, configured=configured)
    if len(found) > remount.MOST:
        return [_too_many(found)]
    reasons = ((mount, remount.why_not(mount, listed)) for mount in found)
    return [_obstacle(mount, reason) for mount, reason in reasons if reason]


def volatile(listed: Iterable[Mount]) -> list[Mount]:
    """The tmpfs among the mounts of a container that end with it, each once, where it shows all.

    One that the host has mounted as well lives on.
    """
    listed = list(listed)
    of_host = {mount.device for mount in read("self")}
    own = {mount.device for mount in listed if mount.place == "/"}
    found: dict[int, Mount] = {}
    for mount in listed:
        ends = mount.type == "tmpfs" and mount.device not in of_host | own
        # What LXC itself puts there is full of mounts, and never written to.
        of_kernel = mount.place.startswith(("/sys/", "/proc/")) and _is_of_runtime(mount)
        if ends and mount.root == "/" and not of_kernel:
            found.setdefault(mount.device, mount)
    return list(found.values())


def from_host(listed: Iterable[Mount], *, configured: Iterable[str]) -> list[Mount]:
    """Directories of the host among the mounts of a container, that its configuration asks for."""
    of_host = {mount.device for mount in read("self")}
    places = {str(PurePosixPath("/") / place) for place in configured}
    return [
        mount
        for mount in listed
        if mount.device in of_host and mount.place in places and mount.type not in OF_KERNEL
    ]


def identity(mount: Mount, *, init_pid: int) -> dict[str, str]:
    """What tells a directory of the host that is mounted in a container from another one.

    `filesystem` is what the file system itself gives as its identity; `source` is for people.
    """
    root = os.open(f"/proc/{init_pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fd = native_mounts.open_in_root(root, mount.place)
        try:
            number = os.statvfs(f"/proc/self/fd/{fd}").f_fsid
        finally:
            os.close(fd)
    except OSError as error:
        raise HostError(f"Failed to look at '{mount.place}' of the container: {error}") from error
    finally:
        os.close(root)
    return {"type": mount.type, "filesystem": f"{number:x}", "source": host_path(mount)}


def host_path(mount: Mount) -> str:
    """Where the host sees what is mounted; as the file system names it if nowhere."""
    for one in read("self"):
        if one.device == mount.device and PurePosixPath(mount.root).is_relative_to(one.root):
            return str(PurePosixPath(one.place) / PurePosixPath(mount.root).relative_to(one.root))
    return f"{mount.source}:{mount.root}"


def unescape(text: str) -> str:
    """Blanks and backslashes in a path are octal in mountinfo and fstab(5)."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def escape(text: str) -> str:
    """The opposite of `unescape`."""
    return re.sub(r"[\\ \t\n]", lambda match: f"\\{ord(match[0]):03o}", text)


def _is_of_runtime(mount: Mount) -> bool:
    return any(
        pattern.fullmatch(mount.place) and (types is None or mount.type in types)
        for pattern, types in RUNTIME
    )


def _too_many(found: list[Mount]) -> Obstacle:
    return Obstacle(
        kind="unsupported",
        message=f"{len(found)} mounts were made inside the container, the last one at "
        f"'{found[-1].place}', and a restart makes {remount.MOST} again at most",
        hint="Unmount what is not needed",
        object="mount",
    )


def _obstacle(mount: Mount, reason: str) -> Obstacle:
    return Obstacle(
        kind="unsupported",
        message=f"'{mount.place}' ({mount.type}) was mounted inside the container, and a restart "
        f"could not do that again: {reason}",
        hint=f"Unmount it, or let LXC mount it: lxc.mount.entry = ... {mount.place.lstrip('/')} "
        f"{mount.type} ...",
        object="mount",
    )
