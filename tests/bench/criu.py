# SPDX-License-Identifier: LGPL-2.1-or-later
"""CRIU on the same load, where one of version 4 or newer is found in PATH.

It gets the load as a plain process tree: what it does with containers of LXC cannot be compared,
because it does not restart them.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

OLDEST = 4

# Of images/stats.proto: dump_stats_entry is member 1 of stats_entry, these are members of it, in
# microseconds.
FREEZING_TIME, FROZEN_TIME = 1, 2
STATS_HEADER = 12  # two magic numbers and the length of the message


def find() -> str | None:
    """CRIU's version if there is a CRIU to compare with."""
    if not shutil.which("criu"):
        return None
    text = subprocess.run(["criu", "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"Version: (\d+)\S*", text)
    if not found or int(found[1]) < OLDEST:
        return None
    works = subprocess.run(["criu", "check"], capture_output=True, check=False).returncode == 0
    return found[0].removeprefix("Version: ") if works else None


def measure(
    program: Path, arguments: list[str], directory: Path, runs: int
) -> dict[str, list[int]]:
    """Downtime and total times of dump and restore, nanoseconds, one number per run."""
    found: dict[str, list[int]] = {"downtime": [], "checkpoint": [], "restart": []}
    for number in range(runs + 1):
        images = directory / f"criu-{number}"
        images.mkdir()
        with load(program, arguments, directory) as pid:
            checkpoint = timed("dump", "-t", pid, "-D", images, "--leave-running")
            downtime = downtime_of((images / "stats-dump").read_bytes())
            shutil.rmtree(images)
            images.mkdir()
            timed("dump", "-t", pid, "-D", images)
            restart = timed("restore", "-d", "-D", images)
        shutil.rmtree(images)
        if number:  # the first one warms up
            found["downtime"].append(downtime)
            found["checkpoint"].append(checkpoint)
            found["restart"].append(restart)
    return found


@contextlib.contextmanager
def load(program: Path, arguments: list[str], directory: Path) -> Iterator[int]:
    """The load as a session of its own without a terminal; CRIU restores it under the same pid."""
    status = directory / "criu-status"
    status.unlink(missing_ok=True)
    process = subprocess.Popen(
        [program, status, *arguments],
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while not status.exists() or "ready" not in status.read_text():
            time.sleep(0.01)
        yield process.pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def timed(verb: str, *arguments: object) -> int:
    begin = time.monotonic_ns()
    subprocess.run(
        ["criu", verb, *(str(word) for word in arguments)], check=True, capture_output=True
    )
    return time.monotonic_ns() - begin


def downtime_of(stats: bytes) -> int:
    """Nanoseconds from the first frozen task to the last one released."""
    (dump,) = (value for number, value in members(stats[STATS_HEADER:]) if number == 1)
    times = dict(members(dump))
    return (times[FREEZING_TIME] + times[FROZEN_TIME]) * 1000


def members(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Member number and value of a protobuf message that holds integers and messages."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        key = varint()
        if key & 7 == 0:
            yield key >> 3, varint()
        else:
            length = varint()
            yield key >> 3, data[at : at + length]
            at += length
