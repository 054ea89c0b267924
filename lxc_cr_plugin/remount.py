# SPDX-License-Identifier: LGPL-2.1-or-later
"""Mounts that were made inside a container after its start: whether and how they are made again.

At a restart the runtime makes its own mounts; then, before anything in the container runs, these
follow in the order in which they had been made. A tmpfs is filled before it is attached. A bind mount
is a clone of what is at its source now, and so is another look at /proc or /sys.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from .errors import HostError
from .mount_table import MountTable

if TYPE_CHECKING:
    from .mounts import Mount

# MOUNT_ATTR_* of mount_setattr(2) by their names in mountinfo.
ATTRIBUTES = {
    "ro": 0x1,
    "nosuid": 0x2,
    "nodev": 0x4,
    "noexec": 0x8,
    "nodiratime": 0x80,
    "nosymfollow": 0x200000,
}
NOATIME, STRICTATIME, ANY_ATIME = 0x10, 0x20, 0x70
MS_UNBINDABLE, MS_PRIVATE, MS_SHARED = 1 << 17, 1 << 18, 1 << 20

# Options of a file system that mountinfo shows as they may be given; what else it shows is refused.
TMPFS = {"size", "nr_inodes", "mode", "uid", "gid", "huge", "inode64", "inode32", "noswap"}
OVERLAY = {
    "lowerdir", "upperdir", "workdir", "index", "metacopy", "redirect_dir", "xino", "nfs_export",
    "uuid", "userxattr", "volatile",
}  # fmt: skip

PATHS = {"lowerdir", "upperdir", "workdir"}

# fsconfig(2) takes so many bytes.
LONGEST_OPTION = 255

# So many are made again; each takes a look at all that there are.
MOST = 2000

# Another mount of them shows the same: what they show follows from namespaces.
VIEWS = {"proc", "sysfs", "mqueue", "cgroup", "cgroup2"}

NEW, CLONE = "new", "clone"

CAP_SYS_ADMIN = 21


class IdMap(NamedTuple):
    """The rows of /proc/PID/uid_map or gid_map: first id inside, first id on the host, how many."""

    rows: tuple[tuple[int, int, int], ...]

    def inside(self, number: int) -> int:
        """The id of the container that is @number on the host. Raises OSError when there is none."""
        for first, on_host, count in self.rows:
            if on_host <= number < on_host + count:
                return first + number - on_host
        raise OSError(errno.EOVERFLOW, f"the container has no id for {number} of the host")

    def on_host(self, number: int) -> int | None:
        """The id on the host of @number of the container, None when it is mapped to none."""
        for first, on_host, count in self.rows:
            if first <= number < first + count:
                return on_host + number - first
        return None


# By the options of a tmpfs that they are for.
Owners = dict[str, IdMap]


def owners_of(pid: int) -> Owners:
    """The id maps of the user namespace of process @pid."""
    return {sort: id_map(Path(f"/proc/{pid}/{sort}_map")) for sort in ("uid", "gid")}


def id_map(path: Path) -> IdMap:
    """The id map in the file @path."""
    rows = (tuple(map(int, line.split())) for line in path.read_text().splitlines())
    return IdMap(tuple((first, on_host, count) for first, on_host, count in rows))


class Plan(NamedTuple):
    """How a mount is made again: NEW, or CLONE of @base, from @source in the container."""

    how: str
    source: str = ""
    base: Mount | None = None


def why_not(mount: Mount, listed: Sequence[Mount]) -> str:
    """Why @mount, one of all that are @listed, cannot be made again; "" when it can."""
    if mount.root.endswith("//deleted"):
        return "what it shows was deleted"
    if "idmapped" in mount.options.split(","):
        return "it maps ids"
    planned = plan(mount, listed)
    if planned is None:
        return "file systems of this type come from outside, or from a device"
    if propagation_of(mount, listed) is None and not joins_base(mount, planned):
        return "it passes on or receives what is mounted elsewhere"
    if planned.base and is_looser(mount, planned.base):
        return f"it may be written to, and '{planned.base.place}', which shows the same, may not"
    return why_no_options(mount) if planned.how == NEW else ""


def why_no_options(mount: Mount) -> str:
    """Why a file system with the options of @mount cannot be made; "" when it can."""
    known = TMPFS if mount.type == "tmpfs" else OVERLAY
    for key, value in options_of(mount.super):
        if key not in known:
            return f"it has the option '{key}'"
        if len(os.fsencode(value or "")) > LONGEST_OPTION:
            return f"its option '{key}' is longer than {LONGEST_OPTION} bytes"
        for path in (value or "").split(":") if key in PATHS else ():
            # Kernels differ in how they show a backslash or a colon of a name.
            if "\\" in path or "\\072" in mount.super:
                return f"a name in its option '{key}' has a backslash or a colon"
            if path and not path.startswith("/"):
                return f"its option '{key}' has a relative path"
    return ""


def is_looser(mount: Mount, base: Mount) -> bool:
    """Whether one may write to @mount, but not to @base."""
    return "ro" in base.options.split(",") and "ro" not in mount.options.split(",")


def plan(mount: Mount, listed: Sequence[Mount]) -> Plan | None:
    """How to make @mount again after all that are @listed before it; None: it cannot be done."""
    planned = None
    for base in MountTable(listed).bases_of(mount, alike=mount.type in VIEWS):
        if base.device == mount.device and _is_below(mount.root, base.root):
            rest = PurePosixPath(mount.root).relative_to(base.root)
            one = Plan(CLONE, str(PurePosixPath(base.place) / rest), base)
        else:
            one = Plan(CLONE, base.place, base)
        if joins_base(mount, one):
            return one
        planned = planned or one
    if not planned and mount.type in ("tmpfs", "overlay") and mount.root == "/":
        return Plan(NEW)
    return planned


def joins_base(mount: Mount, planned: Plan) -> bool:
    """Whether it passes on and receives as its base does: a clone does that by itself."""
    base = planned.base
    return base is not None and bool(base.propagation) and base.propagation == mount.propagation


def _is_below(path: str, directory: str) -> bool:
    return PurePosixPath(path).is_relative_to(directory)


def options_of(text: str) -> list[tuple[str, str | None]]:
    """Options of a file system as mountinfo shows them; a flag has no value."""
    from .mounts import unescape

    found = []
    for word in text.split(","):
        key, equals, value = word.partition("=")
        if key not in ("rw", "ro", "seclabel", "relatime"):
            found.append((key, unescape(value) if equals else None))
    return found


def attributes_of(options: str) -> int:
    """MOUNT_ATTR_* of a mount as mountinfo shows them."""
    words = options.split(",")
    found = sum(ATTRIBUTES.get(word, 0) for word in words)
    if "noatime" in words:
        return found | NOATIME
    return found if "relatime" in words else found | STRICTATIME


def propagation_of(mount: Mount, listed: Sequence[Mount]) -> int | None:
    """MS_SHARED (the first of its group), MS_UNBINDABLE or MS_PRIVATE; None: it follows another."""
    follows = any(word.startswith("master:") for word in mount.propagation)
    if follows or not MountTable(listed).is_first_of_its_groups(mount):
        return None
    if mount.groups():
        return MS_SHARED
    return MS_UNBINDABLE if "unbindable" in mount.propagation else MS_PRIVATE


def describe(mount: Mount, **more: Any) -> dict[str, Any]:
    """A mount as the manifest has it."""
    return {**mount._asdict(), "propagation": list(mount.propagation), **more}


def make_new(init_pid: int, wanted: Sequence[Mount]) -> list[int]:
    """A new file system for each of @wanted, attached nowhere yet; the caller closes them.

    They are made as the root of the container would make them. Raises HostError.
    """
    from .inside import run_inside

    if not wanted:
        return []
    owners = owners_of(init_pid)
    return run_inside(
        init_pid, lambda _: [new_file_system(mount, owners) for mount in wanted], as_root=True
    )


def new_file_system(mount: Mount, owners: Owners) -> int:
    """The same file system as that of @mount, empty; called inside. Raises OSError."""
    from .native import mounts

    options: list[tuple[str, str | None]] = []
    for key, value in options_of(mount.super):
        if key in owners and value is not None:
            options.append((key, str(owners[key].inside(int(value)))))
        else:
            options.append((key, value))
    if mount.source not in ("", "none"):
        options.append(("source", mount.source))
    try:
        return mounts.new(mount.type, options)
    except OSError as error:
        raise OSError(error.errno, f"no {mount.type}: {error.strerror}", mount.place) from error


def attach_all(
    init_pid: int,
    made: Sequence[Mount],
    listed: Sequence[Mount],
    ready: dict[int, int],
    *,
    changed: Sequence[Mount],
) -> None:
    """Make the mounts @made again in the container, in this order; those in @ready exist.

    @ready has descriptors by the ids of mounts. Mounts @changed are there and get their flags.
    Raises HostError.
    """
    from .inside import run_inside
    from .native import mounts

    if not may_mount(init_pid):
        raise HostError(
            f"'{[*made, *changed][0].place}' was mounted or changed inside the container, which "
            "may not do that any more",
            hint="Did lxc.cap.drop change? Give it back sys_admin",
        )

    listed = MountTable(listed)
    table = os.open(f"/proc/{init_pid}/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
    owners = owners_of(init_pid)

    def work(root: int) -> list[int]:
        for mount in changed:
            place = mounts.open_in_root(root, mount.place)
            set_flags(place, mount)
            set_propagation(place, propagation_of(mount, listed))
        for mount in made:
            # What is attached to a shared mount appears at its peers by itself.
            now = current(table)
            if not is_there(mount, listed, now):
                fd = make(mount, listed, now, root=root, ready=ready, owners=owners)
                set_flags(fd, mount)
                mounts.attach(fd, mounts.open_in_root(root, mount.place))
            planned = plan(mount, listed)
            if planned and not joins_base(mount, planned):
                place = mounts.open_in_root(root, mount.place)
                set_propagation(place, propagation_of(mount, listed))
        return []

    try:
        run_inside(init_pid, work, keep=(table, *ready.values()), as_root=True)
    finally:
        os.close(table)


def make(
    mount: Mount,
    listed: Sequence[Mount],
    now: Sequence[Mount],
    *,
    root: int,
    ready: dict[int, int],
    owners: Owners,
) -> int:
    """The file system or the clone for @mount, attached nowhere yet. Raises OSError.

    All that is @listed was there at the checkpoint, all that is there @now is.
    """
    from .native import mounts

    planned = plan(mount, listed)
    if planned is None:
        raise OSError(errno.EINVAL, "nobody knows how to mount it", mount.place)
    if planned.base:
        source, base = (
            mounts.open_in_root(root, place) for place in (planned.source, planned.base.place)
        )
        # What it was cloned from may have been unmounted since, and something else cover the rest.
        seen = next((m for m in reversed(now) if m.place == planned.base.place), None)
        same = seen and (seen.type, seen.root) == (planned.base.type, planned.base.root)
        if not same or mounts.identity(source) != mounts.identity(base):
            raise OSError(errno.EBUSY, "another mount covers what it shows", mount.place)
        if seen and is_looser(mount, seen):
            raise OSError(errno.EROFS, "what it shows is mounted read-only", mount.place)
        return mounts.clone(source)
    fd = ready.get(mount.id, -1)
    return fd if fd >= 0 else new_file_system(mount, owners)


def current(table: int) -> Sequence[Mount]:
    """The mounts in the open mountinfo @table, as they are now."""
    from .mounts import parse

    os.lseek(table, 0, os.SEEK_SET)
    with os.fdopen(os.dup(table), "rb") as file:
        return parse(file.read())


def is_there(mount: Mount, listed: Sequence[Mount], now: Sequence[Mount]) -> bool:
    """Whether as many mounts are at its place as were when it had been made."""
    return sum(one.place == mount.place for one in now) >= MountTable(listed).count_at_place(mount)


def set_propagation(fd: int, propagation: int | None) -> None:
    """Let the mount @fd pass on as it did; one that becomes shared leaves the group that it is in."""
    from .native import mounts

    if propagation == MS_SHARED:
        mounts.change(fd, propagation=MS_PRIVATE)
    if propagation:
        mounts.change(fd, propagation=propagation)


def set_flags(fd: int, mount: Mount) -> None:
    """Give the mount @fd the flags of @mount and no others. Raises OSError."""
    from .native import mounts

    attributes = attributes_of(mount.options)
    others = sum(ATTRIBUTES.values()) & ~attributes
    mounts.change(fd, add=attributes, take=others | ANY_ATIME)


def may_mount(pid: int) -> bool:
    """Whether process @pid has CAP_SYS_ADMIN, so that it could have mounted something."""
    text = Path(f"/proc/{pid}/status").read_text()
    (capabilities,) = (line.split()[1] for line in text.splitlines() if line.startswith("CapEff"))
    return bool(int(capabilities, 16) >> CAP_SYS_ADMIN & 1)


def from_manifest(entry: dict[str, Any]) -> Mount:
    """The mount that the manifest describes."""
    from .mounts import Mount

    members = {name: entry[name] for name in Mount._fields}
    return Mount(**{**members, "propagation": tuple(entry["propagation"])})


def below(listed: Sequence[Mount], place: str) -> list[str]:
    """Places of mounts in what is mounted at @place, relative to it."""
    return [
        str(PurePosixPath(m.place).relative_to(place))
        for m in listed
        if m.place != place and _is_below(m.place, place)
    ]


def close_all(fds: Sequence[int]) -> None:
    """Close descriptors."""
    for fd in fds:
        os.close(fd)
