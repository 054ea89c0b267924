# SPDX-License-Identifier: LGPL-2.1-or-later
"""Processes with a namespace of their own, and what the test's process has open."""

import itertools
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..integration.container import wait_until


class Apart:
    """A shell in a namespace of its own, that does what it is told."""

    def __init__(self, shell: subprocess.Popen, directory: Path) -> None:
        self.pid = shell.pid
        self._shell = shell
        self._directory = directory
        self._numbers = itertools.count()

    def begin(self, line: str) -> None:
        """Tell it to do something, and do not wait for the end."""
        self._shell.stdin.write(f"{line}\n")
        self._shell.stdin.flush()

    def do(self, line: str) -> None:
        """Let it do something that must succeed."""
        done = self._directory / f"done-{next(self._numbers)}"
        self.begin(f"{line}; echo $? >{done}.new; mv {done}.new {done}")
        wait_until(done.exists, what=line)
        assert done.read_text() == "0\n", line

    def kill(self) -> None:
        """End it, so that there is no such process any more."""
        self._shell.kill()
        self._shell.wait()


@contextmanager
def apart(namespace: str, directory: Path) -> Iterator[Apart]:
    """A process with its own "mnt" or "net", dead at the end; it may write to @directory."""
    flag = {"mnt": "--mount", "net": "--net"}[namespace]
    with subprocess.Popen(["unshare", flag, "sh"], stdin=subprocess.PIPE, text=True) as shell:
        made = Apart(shell, directory)
        try:
            made.do(":")  # by what unshare(1) executes when it has done all
            yield made
        finally:
            made.kill()


def run_inside(pid: int, *words: str, **options: Any) -> subprocess.CompletedProcess:
    """Run a command in the network of process @pid; it must succeed."""
    return subprocess.run(["nsenter", "-t", str(pid), "-n", *words], check=True, **options)


def open_fds() -> set[int]:
    """Numbers of our descriptors; among them one more, of this look itself."""
    return {int(path.name) for path in Path("/proc/self/fd").iterdir()}
