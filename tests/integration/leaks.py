# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a test may not leave behind on the machine."""

import contextlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from .container import SESSION_VARIABLE, Laboratory, run


def leftovers_of(laboratory: Laboratory) -> list[str]:
    """Everything that still exists of this session's containers; an empty list is good."""
    return [
        *_processes(laboratory),
        *_cgroups(laboratory),
        *_mounts(laboratory),
        *(f"journal {path}" for path in laboratory.run_dir.glob("*.json")),
        *(f"meeting place {path}" for path in laboratory.run_dir.glob("meet-*")),
        *(f"staging directory {path}" for path in laboratory.store.glob(".staging/*")),
    ]


def _processes(laboratory: Laboratory) -> list[str]:
    wanted = f"{SESSION_VARIABLE}={laboratory.session}".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if wanted not in (process / "environ").read_bytes().split(b"\0"):
                continue
            words = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if int(process.name) != os.getpid():
            found.append(f"process {process.name}: {words.strip()}")
    return found


def _cgroups(laboratory: Laboratory) -> list[str]:
    root = Path("/sys/fs/cgroup")
    pattern = f"*/lxc.*.{laboratory.session}-*"
    return [
        f"cgroup {directory}{' (frozen)' if is_frozen(directory) else ''}"
        for directory in {*root.glob(pattern), *root.glob(pattern[2:])}
        if directory.is_dir()
    ]


def _mounts(laboratory: Laboratory) -> list[str]:
    return [
        f"mount {line.split()[4]}"
        for line in Path("/proc/self/mountinfo").read_text().splitlines()
        if line.split()[4].startswith(f"{laboratory.path}/")
    ]


def is_frozen(cgroup: Path) -> bool:
    """Whether this cgroup is frozen or on the way there, in either version."""
    for name, thawed in (("freezer.state", "THAWED"), ("cgroup.freeze", "0")):
        file = cgroup / name
        with contextlib.suppress(OSError):
            if file.read_text().strip() != thawed:
                return True
    return False


@dataclass(frozen=True)
class Machine:
    """What belongs to nobody in particular and must be the same after the tests as before."""

    frozen: frozenset[str]
    links: frozenset[str]
    namespaces: frozenset[str]
    tables: frozenset[str]

    @classmethod
    def look(cls) -> "Machine":
        return cls(
            frozen=frozenset(
                directory
                # os.walk() does not mind that directories of others vanish meanwhile
                for directory, _, names in os.walk("/sys/fs/cgroup")
                if {"freezer.state", "cgroup.freeze"} & set(names) and is_frozen(Path(directory))
            ),
            links=frozenset(path.name for path in Path("/sys/class/net").iterdir()),
            namespaces=_names(Path("/run/netns")),
            tables=_tables(),
        )

    def left_since(self, before: "Machine") -> list[str]:
        return [
            f"{what} {name}"
            for what in ("frozen", "links", "namespaces", "tables")
            for name in sorted(getattr(self, what) - getattr(before, what))
        ]


def _names(directory: Path) -> frozenset[str]:
    return frozenset(p.name for p in directory.iterdir()) if directory.is_dir() else frozenset()


def _tables() -> frozenset[str]:
    if not shutil.which("nft"):
        return frozenset()
    return frozenset(run("nft", "list", "tables", check=False).stdout.splitlines())
