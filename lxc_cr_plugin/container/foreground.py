# SPDX-License-Identifier: LGPL-2.1-or-later
"""A container whose start stays in the foreground, with the terminal as its console."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..run import readable
from .lxc import LxcContainer, LxcStart


class LxcMonitor(LxcStart):
    """The process that starts the container and then keeps it, a child of ours."""

    def wait(self, *, timeout: float | None = None) -> int | None:
        """0 as long as it lives: a container that runs is not over when its start is."""
        return super().wait(timeout=timeout) if readable(self.pidfd, timeout=0) else 0

    def __exit__(self, *exception: object) -> None:
        # After a success it stays, and so does its pidfd.
        if exception and exception[0] is not None:
            super().__exit__()

    def join(self) -> None:
        """Wait until the container has ended."""
        readable(self.pidfd, timeout=None)
        super().__exit__()


class ForegroundContainer(LxcContainer):
    """The container, which is to have our terminal; `monitor` is set by its start."""

    monitor: LxcMonitor | None = None

    def start(
        self,
        *,
        hook: list[str],
        sources: Mapping[str, str | None],
        settings: Sequence[tuple[str, str]] = (),
        keep: tuple[int, ...] = (),
    ) -> LxcMonitor:
        child, output = self._spawn(
            hook, sources=sources, settings=settings, keep=keep, foreground=True
        )
        self.monitor = LxcMonitor(child, container=self, output=output)
        return self.monitor
