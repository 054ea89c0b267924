# SPDX-License-Identifier: LGPL-2.1-or-later
"""LXC through its own Python binding.

Three properties of liblxc shape this file. Its command socket is named after a hash of the lxcpath
as spelled, so a relative path finds no running container: paths are made absolute, without `..`. start() holds
Python's global lock until the container runs: it gets a process of its own. And what is appended
to the configuration in memory is never saved, which is how the hook leaves no trace.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import lxc

from ..config import one_spelling
from ..errors import ContainerError, HostError, LxcCrError, RestartError
from ..freezer import remove_empty
from ..mounts import escape, unescape
from ..network import Nic
from ..run import Child, close_once, fork, until
from . import STOPPED

# How long LXC may take to clean up after a kill, seconds.
STOP_TIMEOUT = 30.0

# How long a process that was waited for may stay in its cgroup, seconds.
CGROUP_TIMEOUT = 1.0

# Where containers are when nobody says.
DEFAULT_PATH = str(lxc.default_config_path)

# Tells hooks that lxc-cr itself starts the container.
RESTARTING = "LXC_CR_RESTART"

# What LXC mounts besides with lxc.apparmor.allow_nesting, which Debian's default.conf sets.
NESTING = ("dev/.lxc/proc", "dev/.lxc/sys")

# By this the hooks of config/lxc/resume.conf are known.
RESUME_HOOK = "lxc-pre-start"


def running(lxcpath: str | None) -> list[str]:
    """Names of the containers in @lxcpath (None: LXC's default) that run now."""
    path = one_spelling(lxcpath or lxc.default_config_path)
    return sorted(lxc.list_containers(active=True, defined=False, config_path=path))


# What gives an interface its addresses.
STATIC = ("ipv4.address", "ipv4.gateway", "ipv6.address", "ipv6.gateway")

# Entries of lxc.net are numbered; nobody counts further.
MOST_NICS = 64


class LxcStart(Child):
    """The process in which liblxc starts a container; what it prints is kept for the error."""

    def __init__(self, child: Child, *, container: LxcContainer, output: int) -> None:
        super().__init__(pid=child.pid, pidfd=child.pidfd)
        self._container = container
        self._output = output

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        close_once(self, "_output")

    def failure(self) -> LxcCrError:
        """RestartError with what liblxc printed."""
        text = os.pread(self._output, 1 << 16, 0).decode(errors="replace").strip()
        reason = f": {text.splitlines()[-1]}" if text else ""
        return RestartError(
            f"LXC could not start container '{self._container.name}'{reason}",
            hint=f"Try `lxc-start {self._container.address} -F -l DEBUG -o /dev/stderr` "
            "to see whether it starts without a checkpoint",
        )


class MountEntry(NamedTuple):
    """A line of fstab(5) in a container's configuration, and its words as they stand there."""

    source: str
    place: str
    words: list[str]


def _mount_only(container: Any, lines: list[str]) -> None:
    """Let LXC mount this instead of what its configuration says."""
    container.clear_config_item("lxc.mount.entry")
    container.clear_config_item("lxc.mount.fstab")
    for line in lines:
        container.append_config_item("lxc.mount.entry", line)


class LxcContainer:
    """A container of LXC; see `Container` for the meaning of each method."""

    runtime = "lxc"

    def __init__(self, *, name: str, lxcpath: str | None = None) -> None:
        """@lxcpath: None is LXC's default. Raises HostError when liblxc does not work at all."""
        if not name or "/" in name or name in (".", ".."):
            raise ContainerError(f"'{name}' cannot be the name of a container")
        self.name = name
        self.lxcpath = one_spelling(lxcpath or lxc.default_config_path)
        self.directory = Path(self.lxcpath, name)
        self.address = f"-n {shlex.quote(name)}"
        if self.lxcpath != lxc.default_config_path:
            self.address = f"-P {shlex.quote(self.lxcpath)} {self.address}"
        self._lxc = self._open()

    def _open(self) -> Any:
        try:
            return lxc.Container(self.name, self.lxcpath)
        except Exception as error:
            raise HostError(f"liblxc refused container '{self.name}': {error}") from error

    def defined(self) -> bool:
        return bool(self._lxc.defined)

    def state(self) -> str:
        return str(self._lxc.state)

    def init_pid(self) -> int:
        pid = int(self._lxc.init_pid)
        if pid <= 0:
            raise ContainerError(f"Container '{self.name}' is not running")
        return pid

    def rootfs(self) -> str:
        return self._item("lxc.rootfs.path")

    def config_text(self) -> str:
        return Path(self._lxc.config_file_name).read_text(errors="surrogateescape")

    def shares_network(self) -> bool:
        return self._item("lxc.net.0.type") == "none" or bool(self._item("lxc.namespace.share.net"))

    def mount_places(self) -> list[str]:
        places = [entry.place for entry in self._mount_entries()]
        if self._item("lxc.apparmor.allow_nesting") == "1":
            places += NESTING
        return places

    def mount_lines(self, sources: Mapping[str, str | None]) -> list[str]:
        lines = []
        for entry in self._mount_entries():
            source = sources.get(str(PurePosixPath("/") / entry.place))
            words = [escape(source), *entry.words[1:]] if source else entry.words
            lines.append(" ".join(words))
        return lines

    def _mount_entries(self) -> list[MountEntry]:
        entries = self._items("lxc.mount.entry")
        fstab = self._item("lxc.mount.fstab")
        if fstab:
            with suppress(OSError):
                entries += Path(fstab).read_text(errors="surrogateescape").splitlines()
        # fstab(5): what, where, type, options
        fields = [line.split() for line in entries if not line.lstrip().startswith("#")]
        return [
            MountEntry(words[0], unescape(words[1]), words) for words in fields if len(words) > 1
        ]

    def nics(self) -> list[Nic]:
        found: list[Nic] = []
        unnamed = 0
        for number in range(MOST_NICS):
            kind = self._item(f"lxc.net.{number}.type")
            if kind in ("", "none", "empty"):
                continue
            link = self._item(f"lxc.net.{number}.link")
            name = self._item(f"lxc.net.{number}.name")
            if not name:
                # a device of the host keeps its name, the kernel numbers the others
                name = link if kind == "phys" else f"eth{unnamed}"
                unnamed += kind != "phys"
            address = self._item(f"lxc.net.{number}.hwaddr")
            pair = self._item(f"lxc.net.{number}.veth.pair") if kind == "veth" else ""
            members = tuple(
                member for member in STATIC if any(self._items(f"lxc.net.{number}.{member}"))
            )
            found.append(Nic(number, kind, name, link, address, pair, members))
        return found

    def cgroup_hint(self) -> str | None:
        moved = ("lxc.cgroup.dir", "lxc.cgroup.dir.container")
        if any(self._item(key) for key in moved):
            return None
        with suppress(KeyError):  # not set
            if lxc.get_global_config_item("lxc.cgroup.pattern"):
                return None
        return f"lxc.payload.{self.name}"

    def resumes(self) -> bool:
        return any(RESUME_HOOK in line for line in self._items("lxc.hook.pre-start"))

    def clean_up(self) -> None:
        """Remove what LXC leaves of a start that has failed: cgroups.

        It removes those of its monitor itself, once, as soon as the hook that failed has been waited for.
        Since Linux 6.18 a process may leave its cgroup after that, and rmdir(2) then says EBUSY. All of them
        are left when the monitor was killed, with those that the container has made below its own.
        """
        hint = self.cgroup_hint()
        if hint and self.state() == STOPPED:
            for name in (f"lxc.monitor.{self.name}", hint):
                until(partial(remove_empty, name), timeout=CGROUP_TIMEOUT)

    def start(
        self,
        *,
        hook: list[str],
        sources: Mapping[str, str | None],
        settings: Sequence[tuple[str, str]] = (),
        keep: tuple[int, ...] = (),
    ) -> LxcStart:
        child, output = self._spawn(hook, sources=sources, settings=settings, keep=keep)
        return LxcStart(child, container=self, output=output)

    def start_afresh(self) -> LxcStart:
        """Start it as LXC always does, with its own init."""
        child, output = self._spawn(None, sources={})
        return LxcStart(child, container=self, output=output)

    def _spawn(
        self,
        hook: list[str] | None,
        *,
        sources: Mapping[str, str | None],
        settings: Sequence[tuple[str, str]] = (),
        keep: tuple[int, ...] = (),
        foreground: bool = False,
    ) -> tuple[Child, int]:
        """The process that starts it, and a file for what that prints.

        In the @foreground it has the terminal, and lives as long as the container.
        """
        output = os.memfd_create("lxc-start", os.MFD_CLOEXEC)

        def work() -> int:
            os.dup2(output, 1)
            os.dup2(output, 2)
            # LXC sets this at a reboot, which the hook must let pass; ours may come from a hook.
            os.environ.pop("LXC_TARGET", None)
            # The hooks of config/lxc/resume.conf, if the container has them, leave this start to us.
            os.environ[RESTARTING] = "1"
            container = self._open()
            if not all(container.set_config_item(key, value) for key, value in settings):
                return 2
            # LXC hands a hook to the shell.
            if hook and not container.append_config_item("lxc.hook.start-host", shlex.join(hook)):
                return 2
            if hook:
                announce_clocks(container)
            if any(sources.values()):
                _mount_only(container, self.mount_lines(sources))
            # No arguments: an empty tuple would become an init without argv[0]. What keeps a
            # container for long must not keep our lock; LXC's daemon closes everything anyway.
            started = container.start(daemonize=not foreground, close_fds=True)
            return 0 if started else 1

        return fork(work, keep=(output, *keep), session=not foreground), output

    def kill(self) -> None:
        self._lxc.stop()
        if not self.wait_for(STOPPED, timeout=STOP_TIMEOUT):
            raise ContainerError(
                f"Container '{self.name}' did not stop within {STOP_TIMEOUT:.0f} s",
                hint=f"Look at it with `lxc-info {self.address}`",
            )

    def wait_for(self, state: str, *, timeout: float) -> bool:
        # Not lxc's own wait(): it would hold the global lock and with it our signal handlers.
        return until(lambda: self.state() == state, timeout=timeout)

    def _items(self, key: str) -> list[str]:
        """The values of a key that may be given several times."""
        try:
            values = self._lxc.get_config_item(key)
        except KeyError:
            return []
        return [values] if isinstance(values, str) else [str(value) for value in values or ()]

    def _item(self, key: str) -> str:
        """A configuration value; "" when it is not set or this LXC has no such key."""
        try:
            value = self._lxc.get_config_item(key)
        except KeyError:
            return ""
        # How liblxc prints some of what is not set.
        return value if isinstance(value, str) and value != "(null)" else ""


# To the least that LXC takes for an offset: a later reboot starts with the clocks of the host.
TIME_OFFSETS = ("lxc.time.offset.boot", "lxc.time.offset.monotonic")
LEAST_OFFSET = "1ns"


def announce_clocks(container: Any) -> None:
    """Have LXC make a time namespace at the start, in whose place the engine puts its own.

    Otherwise lxc-attach, and the hooks of a stop, would not look for one. A container that has an
    offset of its own has one already; an LXC that has no such key does without.
    """
    with suppress(KeyError):
        if not any(re.search("[1-9]", str(container.get_config_item(k))) for k in TIME_OFFSETS):
            container.append_config_item(TIME_OFFSETS[0], LEAST_OFFSET)
