# SPDX-License-Identifier: LGPL-2.1-or-later
"""What stands in the way of a checkpoint, found without stopping anything."""

from __future__ import annotations

from typing import NamedTuple

from . import isolation, mounts, native, network
from .container import FROZEN, STOPPED, Container, refuse_undefined
from .errors import ContainerError, IsolationError, LxcCrError, Obstacle, UnsupportedError
from .freezer import Cgroups, find_cgroups
from .log import Reporter


class Subject(NamedTuple):
    """A running container as /proc shows it, and how the engine is told about it."""

    cgroups: Cgroups
    target: native.Target


def examine(container: Container) -> Subject:
    """Where the container's processes are; ContainerError when it does not run or is frozen.

    HostError when we are in a container ourselves.
    """
    isolation.refuse_nested()
    refuse_undefined(container)
    state = container.state()
    if state == STOPPED:
        raise ContainerError(
            f"Container '{container.name}' is not running",
            hint=f"Start it with `lxc-start {container.address}`",
        )
    init_pid = container.init_pid()
    cgroups = find_cgroups(init_pid=init_pid)
    freezer = cgroups.freezer
    if state == FROZEN or (freezer and freezer.frozen()):
        raise ContainerError(
            f"Container '{container.name}' is frozen",
            hint=f"Thaw it with `lxc-unfreeze {container.address}`: a checkpoint freezes by itself",
        )
    return Subject(
        cgroups,
        native.Target(
            init_pid=init_pid,
            cgroup=str(cgroups.tasks),
            freezer=str(freezer.path) if freezer else None,
            freezer_is_v2=bool(freezer and freezer.is_v2),
        ),
    )


def prove_isolation(container: Container, subject: Subject, *, report: Reporter) -> list[Obstacle]:
    """What the running container shares with the outside."""
    with report.step("isolation", "Prove that nothing is shared with the outside"):
        return isolation.obstacles(
            init_pid=subject.target.init_pid,
            pids=subject.cgroups.pids,
            network_shared=container.shares_network(),
        )


def mount_obstacles(container: Container, subject: Subject, *, report: Reporter) -> list[Obstacle]:
    """What was mounted inside and a restart could not mount again."""
    with report.step("mounts", "Look at the mounts"):
        return mounts.obstacles(
            init_pid=subject.target.init_pid, configured=container.mount_places()
        )


def refuse_early(
    container: Container, subject: Subject, *, scope: native.Scope, report: Reporter
) -> None:
    """Raise what `refuse` does when something can be seen without the engine, but name all there is."""
    found = prove_isolation(container, subject, report=report)
    if not found:
        found = mount_obstacles(container, subject, report=report)
        if found:
            found += other_obstacles(container, subject, scope=scope, report=report)
    refuse(container, found)


def find_obstacles(
    container: Container,
    subject: Subject,
    *,
    scope: native.Scope,
    report: Reporter,
) -> list[Obstacle]:
    """Everything that would make a checkpoint of the running container fail now."""
    found = prove_isolation(container, subject, report=report)
    # The engine takes for granted that there is a container of its own to look into.
    return found or [
        *mount_obstacles(container, subject, report=report),
        *other_obstacles(container, subject, scope=scope, report=report),
    ]


def other_obstacles(
    container: Container, subject: Subject, *, scope: native.Scope, report: Reporter
) -> list[Obstacle]:
    """What is found by looking longer, in a container that shares nothing with the outside."""
    with report.step("network", "Look at the network"):
        found = network_obstacles(container, subject)
    with report.step("check", "Look for objects that cannot be dumped"):
        return found + native.check(
            target=subject.target,
            scope=scope,
            listener=report,
        )


def network_obstacles(container: Container, subject: Subject) -> list[Obstacle]:
    """What the container's network has that a restart could not put back."""
    if container.shares_network():
        return []
    watch = network.Watch(subject.target.init_pid, container.nics())
    try:
        return watch.obstacles()
    finally:
        watch.close()


def refuse(container: Container, found: list[Obstacle]) -> None:
    """Raise IsolationError or UnsupportedError when there is an obstacle in @found."""
    if not found:
        return
    chosen: type[LxcCrError] = UnsupportedError
    if all(obstacle.kind == "isolation" for obstacle in found):
        chosen = IsolationError
    first = found[0]
    raise chosen(
        f"Container '{container.name}' cannot be checkpointed now, it runs on",
        hint=f"`lxc-cr check {container.name}` looks again",
        pid=first.pid,
        comm=first.comm,
        object=first.object,
        obstacles=tuple(found),
    )
