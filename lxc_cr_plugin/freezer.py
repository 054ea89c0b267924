# SPDX-License-Identifier: LGPL-2.1-or-later
"""The container's cgroups and the freezer among them, on cgroup v1, v2 and both at once.

The engine freezes and thaws during a checkpoint. Python finds the directories, and thaws when an
engine died before it could.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

from .errors import IsolationError

PROC = Path("/proc")


class Freezer(NamedTuple):
    """A cgroup directory that can be frozen."""

    path: Path
    is_v2: bool

    def frozen(self) -> bool:
        """Whether it was told to freeze, by whomever; False when it is gone."""
        try:
            if self.is_v2:
                return (self.path / "cgroup.freeze").read_text().strip() == "1"
            return (self.path / "freezer.state").read_text().strip() in ("FROZEN", "FREEZING")
        except FileNotFoundError:
            return False

    def thaw(self) -> None:
        """Let its tasks run; a directory that is gone is fine."""
        name, value = ("cgroup.freeze", "0") if self.is_v2 else ("freezer.state", "THAWED")
        try:
            (self.path / name).write_text(value)
        except FileNotFoundError:
            return


class Cgroups(NamedTuple):
    """Where the tasks of a container are accounted; `tasks` holds all of them in its subtree."""

    tasks: Path
    freezer: Freezer | None
    memory: Path | None

    def pids(self) -> set[int]:
        """Processes in the whole subtree, as host pids."""
        found: set[int] = set()
        for procs in self.tasks.rglob("cgroup.procs"):
            try:
                # A process of a pid namespace that we cannot see shows as 0.
                found.update(int(line) for line in procs.read_text().split())
            except FileNotFoundError:
                continue
        return found


def find_cgroups(*, init_pid: int, proc: Path = PROC) -> Cgroups:
    """The cgroups of the container whose init is @init_pid.

    Raises IsolationError when it has none of its own: freezing the host's would freeze us too.
    """
    mounts = _mounts((proc / "self/mountinfo").read_text())
    places = _places((proc / str(init_pid) / "cgroup").read_text(), mounts=mounts)
    freezer: Freezer | None = None
    if "freezer" in places:
        freezer = Freezer(places["freezer"], is_v2=False)
    elif "" in places and (places[""] / "cgroup.freeze").exists():
        freezer = Freezer(places[""], is_v2=True)
    tasks = freezer.path if freezer else places.get("", next(iter(places.values()), None))
    if tasks is None:
        raise IsolationError(
            f"The container's init (process {init_pid} of the host) has no cgroup of its own",
            hint="Start it through LXC with cgroups enabled; see lxc.cgroup.dir in its config",
        )
    memory = places.get("memory", places.get(""))
    return Cgroups(tasks=tasks, freezer=freezer, memory=memory)


def remove_empty(name: str, *, proc: Path = PROC) -> bool:
    """Remove the cgroups called @name below the root of every hierarchy; False when one is in use.

    Those below go with them, such as an init like systemd makes: all of them, or none when a process is
    in any. A container of the same name in another lxcpath may be running in there.
    """
    left = False
    for mount in _mounts((proc / "self/mountinfo").read_text()):
        top = Path(mount.point, name)
        try:
            if any(procs.read_bytes() for procs in top.rglob("cgroup.procs")):
                left = True
                continue
            for directory, _, _ in os.walk(top, topdown=False):
                Path(directory).rmdir()
        except (OSError, RecursionError):  # so deep that only a hostile container has made it
            left = left or top.exists()
    return not left


def memory_use(cgroups: Cgroups) -> int:
    """Bytes of anonymous and shared memory that a checkpoint would have to store, about.

    A lower bound when there is no memory controller: that of the largest process.
    """
    if cgroups.memory:
        try:
            return _memory_stat((cgroups.memory / "memory.stat").read_text())
        except FileNotFoundError:
            pass
    return max((_anonymous(pid) for pid in cgroups.pids()), default=0)


def _memory_stat(text: str) -> int:
    counters = dict(line.split() for line in text.splitlines())
    # v1 counts the subtree under total_*, v2 always does. What v2 has swapped out is not in here.
    v1 = "total_rss" in counters
    names = ["total_rss", "total_shmem", "total_swap"] if v1 else ["anon", "shmem"]
    return sum(int(counters.get(name, 0)) for name in names)


def _anonymous(pid: int) -> int:
    try:
        status = (PROC / str(pid) / "status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    sizes = re.findall(r"^(?:RssAnon|RssShmem|VmSwap):\s+(\d+) kB$", status, re.MULTILINE)
    return 1024 * sum(int(size) for size in sizes)


class _Mount(NamedTuple):
    root: str
    point: str
    controllers: frozenset[str]


def _mounts(mountinfo: str) -> list[_Mount]:
    """Cgroup mounts, see proc_pid_mountinfo(5); that of v2 has the one controller ""."""
    found = []
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        root, point = left.split(" ")[3:5]
        kind, _, options = right.split(" ", 2)
        if kind == "cgroup2":
            found.append(_Mount(_unescape(root), _unescape(point), frozenset({""})))
        elif kind == "cgroup":
            names = frozenset(options.rpartition(" ")[2].split(","))
            found.append(_Mount(_unescape(root), _unescape(point), names))
    return found


def _places(cgroup: str, *, mounts: list[_Mount]) -> dict[str, Path]:
    """For each controller the directory that holds the whole container, if it has its own."""
    places: dict[str, Path] = {}
    for line in cgroup.splitlines():
        _, controllers, path = line.split(":", 2)
        own = payload_root(path)
        if own == "/":
            continue
        for controller in controllers.split(","):
            directory = _directory(own, controller=controller, mounts=mounts)
            if directory and directory.is_dir():
                places[controller] = directory
    return places


def payload_root(path: str) -> str:
    """The cgroup of the whole container, from that of its init.

    LXC puts the payload into a directory of its own, lxc.payload.NAME; an init such as systemd
    moves itself further down. Elsewhere only systemd's habit is known.
    """
    parts = path.strip("/").split("/")
    for count, part in enumerate(parts, start=1):
        if part.startswith("lxc.payload"):
            return "/" + "/".join(parts[:count])
    if parts[-1] == "init.scope":
        parts.pop()
    return "/" + "/".join(parts)


def _directory(path: str, *, controller: str, mounts: list[_Mount]) -> Path | None:
    for mount in mounts:
        if controller not in mount.controllers:
            continue
        root = mount.root.rstrip("/")
        if (path + "/").startswith(root + "/"):
            return Path(mount.point + path[len(root) :])
    return None


def _unescape(text: str) -> str:
    """A field of mountinfo: space, tab, newline and backslash are written in octal."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
