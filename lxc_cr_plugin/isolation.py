# SPDX-License-Identifier: LGPL-2.1-or-later
"""Proof, from /proc alone, that a container shares nothing with a process outside.

What two processes share can only be dumped when both are. So the container must have namespaces of
its own, and its cgroup and its pid namespace must hold the same processes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from .errors import HostError, Obstacle
from .freezer import PROC

# The inode of the first pid namespace: PROC_PID_INIT_INO of the kernel.
FIRST_PID_NAMESPACE = 0xEFFFFFFC

# What the kernel does not tell us.
HIDDEN = "hidden"

NAMESPACES = {
    "pid": "process ids",
    "mnt": "mounts",
    "ipc": "System V IPC and message queues",
    "uts": "the host name",
    "net": "the network",
}


def refuse_nested(*, proc: Path = PROC) -> None:
    """Raise HostError in a container: the engine learns from the kernel which numbers the host gives."""
    if (proc / "self/ns/pid").stat().st_ino != FIRST_PID_NAMESPACE:
        raise HostError(
            "lxc-cr runs in a container itself, where processes have other numbers than those by which "
            "the kernel tells of them",
            hint="Run lxc-cr on the host: only its own containers can be checkpointed, those inside them "
            "can be restarted",
        )


def obstacles(
    *, init_pid: int, pids: Callable[[], set[int]], network_shared: bool, proc: Path = PROC
) -> list[Obstacle]:
    """What the container of @init_pid shares with the outside; empty is the proof.

    @pids gives the processes in its cgroup, numbers of the host; it is asked before and after the
    look at the pid namespace, because processes come and go meanwhile. @network_shared says that sharing
    the network is what its configuration asks for; what uses it is then the engine's to judge.
    """
    own = _namespace(init_pid, "pid", proc=proc)
    if own == HIDDEN:
        raise HostError(
            "The kernel does not tell this process which namespaces the container has",
            hint="Root without capabilities (CAP_SYS_PTRACE above all) is not enough for lxc-cr",
        )
    found = list(_shared_namespaces(init_pid, network_shared=network_shared, proc=proc))
    if own is None or own == _namespace("self", "pid", proc=proc):
        return found
    before = pids()
    inside = {pid for pid in _processes(proc) if _namespace(pid, "pid", proc=proc) == own}
    after = pids()
    for pid in sorted(inside - before - after):
        # One that has just ended, or waits for its parent to notice, has left its cgroup already.
        if _is_alive(pid, proc=proc):
            found.append(_outside_cgroup(pid, proc=proc))
    for pid in sorted((before & after) - inside):
        if _namespace(pid, "pid", proc=proc) not in (None, own):
            found.append(_other_pid_namespace(pid, proc=proc))
    return found


def _shared_namespaces(init_pid: int, *, network_shared: bool, proc: Path) -> Iterator[Obstacle]:
    for name, what in NAMESPACES.items():
        if name == "net" and network_shared:
            continue
        ours = _namespace("self", name, proc=proc)
        if ours is not None and _namespace(init_pid, name, proc=proc) == ours:
            yield Obstacle(
                kind="isolation",
                message=f"The container shares {what} ({name} namespace) with the host",
                hint=f"Give it a {name} namespace of its own: look for lxc.namespace in its config",
                object=f"{name}_namespace",
            )


def _outside_cgroup(pid: int, *, proc: Path) -> Obstacle:
    comm = _comm(pid, proc=proc)
    return Obstacle(
        kind="isolation",
        message=f"Process {_inner_pid(pid, proc=proc)} ({comm}) is in the container's pid namespace"
        f" but not in its cgroup (process {pid} of the host)",
        hint=f"End it, or move it: echo {pid} into cgroup.procs of the container's cgroup",
        pid=_inner_pid(pid, proc=proc),
        comm=comm,
        object="cgroup",
    )


def _other_pid_namespace(pid: int, *, proc: Path) -> Obstacle:
    comm = _comm(pid, proc=proc)
    return Obstacle(
        kind="unsupported",
        message=f"Process {pid} of the host ({comm}) is in the container's cgroup but in another "
        "pid namespace",
        hint="Containers inside the container cannot be checkpointed yet: stop them first",
        comm=comm,
        object="pid_namespace",
    )


def _namespace(pid: int | str, name: str, *, proc: Path) -> str | None:
    """The identity of a namespace, None when the process is gone.

    The kernel does not tell it of a process that has capabilities which we lack, such as the
    host's init seen by a restricted root. No process of a container is one of those.
    """
    try:
        # Asked for every process of the host: pathlib takes five times as long as the kernel.
        return os.readlink(f"{proc}/{pid}/ns/{name}")  # noqa: PTH115
    except PermissionError:
        return HIDDEN
    except (FileNotFoundError, ProcessLookupError):
        return None


def _is_alive(pid: int, *, proc: Path) -> bool:
    try:
        stat = (proc / str(pid) / "stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZXx"


def _processes(proc: Path) -> Iterator[int]:
    return (int(name) for name in os.listdir(proc) if name.isdecimal())  # noqa: PTH208


def _comm(pid: int, *, proc: Path) -> str:
    try:
        return (proc / str(pid) / "comm").read_text(errors="replace").rstrip("\n")
    except (FileNotFoundError, ProcessLookupError):
        return "gone"


def _inner_pid(pid: int, *, proc: Path) -> int:
    """The number of @pid in the innermost of its pid namespaces, 0 when it is gone."""
    try:
        status = (proc / str(pid) / "status").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next(
        (int(line.split()[-1]) for line in status.splitlines() if line.startswith("NSpid:")), 0
    )
