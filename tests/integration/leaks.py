# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a test may not leave behind on the machine."""

import contextlib
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..conftest import MUST_RUN
from . import settings
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
    ours = {os.getpid(), laboratory.preloaded.pid if laboratory.preloaded else 0}
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if wanted not in (process / "environ").read_bytes().split(b"\0"):
                continue
            words = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if int(process.name) not in ours:
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


# What tests make inside containers: on the host it is in the wrong place, whoever has put it there.
LINKS_INSIDE = {"va", "vb", "inner", "mac0", "odd0"}
TABLES_INSIDE = {"table inet guard", "table inet late", "table inet counter"}


@dataclass(frozen=True)
class Machine:
    """What of a session is outside its containers, and must be the same after the tests as before.

    Others use this machine at the same time: what has neither the session's name, nor that of
    something a test makes inside a container, is theirs.
    """

    frozen: frozenset[str]
    links: frozenset[str]
    tables: frozenset[str]
    settings: Mapping[Path, str] = field(default_factory=dict)

    @classmethod
    def look(cls, laboratory: Laboratory) -> "Machine":
        return cls(
            frozen=frozenset(
                directory
                # os.walk() does not mind that directories of others vanish meanwhile
                for directory, _, names in os.walk("/sys/fs/cgroup")
                if f".{laboratory.session}-" in directory
                and {"freezer.state", "cgroup.freeze"} & set(names)
                and is_frozen(Path(directory))
            ),
            links=frozenset(
                path.name
                for path in Path("/sys/class/net").iterdir()
                if _is_of(path, laboratory) or path.name in LINKS_INSIDE
            ),
            tables=_tables() & TABLES_INSIDE,
            # On a machine for several, somebody else's tests may change them meanwhile.
            settings={
                file: settings.read(file)
                for file in (settings.ALL if MUST_RUN else [])
                if file.exists()
            },
        )

    def left_since(self, before: "Machine") -> list[str]:
        made = [
            f"{what} {name}"
            for what in ("frozen", "links", "tables")
            for name in sorted(getattr(self, what) - getattr(before, what))
        ]
        # A module of the kernel that was loaded meanwhile brings its own.
        changed = [
            f"setting {file}: {value}, not {before.settings[file]}"
            for file, value in self.settings.items()
            if value != before.settings.get(file, value)
        ]
        return made + changed


def _is_of(link: Path, laboratory: Laboratory) -> bool:
    """Whether a network interface is one of the session's, or connected to one."""
    names = [link.name]
    with contextlib.suppress(OSError):
        names.append((link / "master").readlink().name)
    return any(laboratory.is_link(name) for name in names)


def _tables() -> frozenset[str]:
    if not shutil.which("nft"):
        return frozenset()
    return frozenset(run("nft", "list", "tables", check=False).stdout.splitlines())
