# SPDX-License-Identifier: LGPL-2.1-or-later
"""Settings of the kernel that tests change; they must be the same after the tests as before."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

# Where the kernel may make huge pages when somebody maps them; none are taken before.
HUGE_PAGES = Path("/proc/sys/vm/nr_overcommit_hugepages")

# Seconds that the kernel gives the holder of a lease.
LEASE_BREAK_TIME = Path("/proc/sys/fs/lease-break-time")

# What becomes of PR_SET_DUMPABLE when a process changes its ids.
SUID_DUMPABLE = Path("/proc/sys/fs/suid_dumpable")

# Merging of equal pages.
MERGING = Path("/sys/kernel/mm/ksm")
MERGING_SETTINGS = [MERGING / name for name in ("pages_to_scan", "sleep_millisecs", "run")]

TRANSPARENT_HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage")
MAKES_HUGE = TRANSPARENT_HUGE_PAGES / "enabled"
HUGE_PAGES_PAUSE = TRANSPARENT_HUGE_PAGES / "khugepaged/scan_sleep_millisecs"

# A restart that took the host's IPC namespace for the container's would set these.
IPC_LIMITS = [
    Path("/proc/sys", name)
    for name in (
        "fs/mqueue/msg_max", "fs/mqueue/msgsize_max", "fs/mqueue/queues_max",
        "kernel/msgmax", "kernel/msgmnb", "kernel/msgmni", "kernel/sem",
        "kernel/shmall", "kernel/shmmax", "kernel/shmmni",
    )
]  # fmt: skip

ALL = [
    HUGE_PAGES, LEASE_BREAK_TIME, SUID_DUMPABLE, *MERGING_SETTINGS, MAKES_HUGE, HUGE_PAGES_PAUSE,
    *IPC_LIMITS,
]  # fmt: skip


def read(file: Path) -> str:
    """What a setting is, as it can be written; of several words, the one in brackets."""
    text = file.read_text().strip()
    _, bracket, chosen = text.partition("[")
    return chosen.partition("]")[0] if bracket else text


@contextlib.contextmanager
def kept(*files: Path) -> Iterator[None]:
    """Whoever changes these settings, they are put back."""
    with contextlib.ExitStack() as stack:
        for file in files:
            stack.callback(file.write_text, read(file))
        yield
