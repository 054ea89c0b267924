# SPDX-License-Identifier: LGPL-2.1-or-later
"""Commands that are cut off at a certain point, with all that they have started."""

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

import psutil

from .container import Container, wait_until

# The system call in which an engine waits at a step.
CLOCK_NANOSLEEP = "230"
MOMENT = 0.05  # seconds


def stand_still(
    container: Container, verb: str, *arguments: object, at: str
) -> subprocess.Popen[str]:
    """Run a command to this point, where it is stopped, or its engine waits."""
    process = container.spawn(verb, *arguments, LXC_CR_FAULT=at)
    command = psutil.Process(process.pid)
    wait_until(
        lambda: (
            process.poll() is not None
            or command.status() == psutil.STATUS_STOPPED
            or (at.endswith("000") and any(sleeps(child) for child in command.children()))
        ),
        what=f"{verb} at {at}",
    )
    assert process.poll() is None, process.communicate()
    return process


def cut(container: Container, verb: str, *arguments: object, at: str) -> None:
    """Run a command to this point, then kill it and all that it has started, at once."""
    process = stand_still(container, verb, *arguments, at=at)
    command = psutil.Process(process.pid)
    for victim in [*command.children(recursive=True), command]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim.pid, signal.SIGKILL)
    process.communicate(timeout=60)


def sleeps(process: psutil.Process) -> bool:
    """Whether it is an engine that waits at a step, and not for a moment somewhere else."""
    with contextlib.suppress(OSError, psutil.Error):
        syscall = Path(f"/proc/{process.pid}/syscall")
        if syscall.read_text().startswith(f"{CLOCK_NANOSLEEP} "):
            before = process.num_ctx_switches().voluntary
            time.sleep(MOMENT)
            return before == process.num_ctx_switches().voluntary
    return False
