# SPDX-License-Identifier: LGPL-2.1-or-later
"""A container of LXC that somebody else is starting, seen from a hook of that start.

LXC runs its hooks before it answers any question about the container: to ask for the state from
within a hook would wait for ever. That the hook was called says it all: the container is stopped.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

from ..errors import ContainerError, LxcCrError, RestartError
from ..pending import PLACE
from ..run import close_once, readable
from . import STOPPED
from .lxc import LxcContainer

# What LXC's daemon is called: /proc/PID/cmdline of the process that keeps the container.
DAEMON = b"[lxc monitor]"


class Monitor:
    """The process that starts and then keeps the container; a Start that is none of our children."""

    def __init__(self, pid: int) -> None:
        """Raises ContainerError when it has ended."""
        try:
            self.pidfd = os.pidfd_open(pid)
        except ProcessLookupError as error:
            raise ContainerError("The process that started the container has ended") from error
        # Taken now: by the time of a failure it may be gone.
        cmdline = Path(f"/proc/{pid}/cmdline").read_bytes()
        self.is_daemon = cmdline.startswith(DAEMON)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # Not ended here: it is LXC's. It keeps the container, or gives up by itself. Both the
        # restart and whoever called it come here.
        close_once(self, "pidfd")

    def wait(self) -> int | None:
        """0 as long as it lives: a container that runs is not over when its start is."""
        return 1 if readable(self.pidfd, timeout=0) else 0

    def failure(self) -> LxcCrError:
        """RestartError; the reason is in LXC's own log."""
        return RestartError(
            "LXC gave up the start",
            hint="See the container's log (lxc-start -o LOG -l DEBUG) for its reason",
        )


class StartingContainer(LxcContainer):
    """The container for whose start a hook was called; `begun` after that hook may end."""

    def __init__(
        self, *, name: str, lxcpath: str, monitor: Monitor, go_on: Callable[[], None]
    ) -> None:
        super().__init__(name=name, lxcpath=lxcpath)
        self.monitor = monitor
        self.begun = False
        self._go_on = go_on

    def state(self) -> str:
        return super().state() if self.begun else STOPPED

    def start(  # type: ignore[override]
        self,
        *,
        hook: list[str],
        sources: Mapping[str, str | None],
        settings: Sequence[tuple[str, str]] = (),
        keep: tuple[int, ...] = (),
    ) -> Monitor:
        """Let LXC go on, and have the hook that it calls next find the place in @hook.

        It has read its configuration by now: there are no other @sources, and @settings, addresses of
        interfaces, are put back with the rest of the network.
        """
        assert not any(sources.values())
        link = self.directory / PLACE
        new = link.with_name(f".{PLACE}.{os.urandom(4).hex()}")
        new.symlink_to(hook[-1])
        new.rename(link)
        self.begun = True
        self._go_on()
        return self.monitor
