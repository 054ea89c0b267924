# SPDX-License-Identifier: LGPL-2.1-or-later
"""What we need of a container runtime. lxc.py is the first implementation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol, Self

from ..errors import ContainerError, LxcCrError
from ..network import Nic
from ..run import until

STOPPED = "STOPPED"
RUNNING = "RUNNING"
FROZEN = "FROZEN"

# How long a start or an end that is under way may take, seconds: longer than a hook waits.
SETTLE_TIMEOUT = 30.0


class Start(Protocol):
    """A start under way in a process of its own; leave its `with` block when it is over."""

    pidfd: int

    def __enter__(self) -> Self:
        """Return itself."""

    def __exit__(self, *_: object) -> None:
        """End the process if it still runs. The container is not touched."""

    def wait(self) -> int | None:
        """Wait for the start to end; 0 when the container runs."""

    def failure(self) -> LxcCrError:
        """Why a start that has ended failed."""


class Container(Protocol):
    """One container of one runtime."""

    @property
    def name(self) -> str:
        """Its name, unique in `lxcpath`."""

    @property
    def lxcpath(self) -> str:
        """The absolute directory that holds the runtime's containers."""

    @property
    def directory(self) -> Path:
        """Where its configuration lies, and what belongs to it and to no other container."""

    @property
    def address(self) -> str:
        """Options that name it to the runtime's own tools, for advice that can be pasted."""

    @property
    def runtime(self) -> str:
        """Name of the runtime, for the manifest."""

    def defined(self) -> bool:
        """Whether it exists."""

    def state(self) -> str:
        """STOPPED, RUNNING, FROZEN or one of the runtime's states in between."""

    def mount_places(self) -> list[str]:
        """Where its configuration has something mounted, relative to its root."""

    def mount_lines(self, sources: Mapping[str, str | None]) -> list[str]:
        """What its configuration mounts, in fstab(5)'s notation, with these @sources by their places."""

    def init_pid(self) -> int:
        """Host pid of its init; raises ContainerError when it does not run."""

    def rootfs(self) -> str:
        """Where its root filesystem lies, in the runtime's own notation."""

    def config_text(self) -> str:
        """Its configuration as the runtime would save it."""

    def shares_network(self) -> bool:
        """Whether its configuration asks for the host's network."""

    def nics(self) -> list[Nic]:
        """The network interfaces that it makes for the container."""

    def cgroup_hint(self) -> str | None:
        """A name that the cgroup of its init will contain after a start; None: unknown."""

    def resumes(self) -> bool:
        """Whether its configuration has the hooks that resume it by a plain start."""

    def start(
        self,
        *,
        hook: list[str],
        sources: Mapping[str, str | None],
        settings: Sequence[tuple[str, str]] = (),
        keep: tuple[int, ...] = (),
    ) -> Start:
        """Start it; @hook, a command, runs on the host while its init stands before exec.

        @sources are what to mount at some places in it instead of what is configured for these, None: that.
        @settings are keys and values of its configuration for this start; nothing is saved.
        @keep lists descriptors that the starting process holds until its end (a lock, say).
        """

    def kill(self) -> None:
        """End all its processes and wait until the runtime has cleaned up."""

    def wait_for(self, state: str, *, timeout: float) -> bool:
        """Wait at most @timeout seconds for @state."""


def no_such(container: Container) -> ContainerError:
    """What to say of a container that does not exist."""
    return ContainerError(
        f"There is no container '{container.name}' in {container.lxcpath}",
        hint="`lxc-ls` shows what there is; -P names another lxcpath",
    )


def refuse_undefined(container: Container) -> None:
    """Raise ContainerError when there is no such container."""
    if not container.defined():
        raise no_such(container)


def settle(container: Container, *, ended: int | None) -> None:
    """Wait until the container is stopped, or runs with another init than the @ended one.

    Raises ContainerError when it stays in between.
    """

    def settled() -> bool:
        state = container.state()
        if state not in (RUNNING, FROZEN):
            return state == STOPPED
        # For a moment the runtime does not know yet that its container has ended.
        with suppress(ContainerError):
            return container.init_pid() != ended
        return False

    if not until(settled, timeout=SETTLE_TIMEOUT):
        raise ContainerError(
            f"Container '{container.name}' is still {container.state()} after "
            f"{SETTLE_TIMEOUT:.0f} s",
            hint=f"Look at it with `lxc-info {container.address}`",
        )
