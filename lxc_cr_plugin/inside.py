# SPDX-License-Identifier: LGPL-2.1-or-later
"""Work in the mount namespace of a container, by a process that enters it and ends.

Only there can a mount be cloned, and only there does a place mean what it means to the container.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
from collections.abc import Callable
from contextlib import suppress

from .errors import HostError
from .native import mounts
from .run import fork

# As many descriptors go with one message (SCM_MAX_FD), and as long may the reason of a failure be.
MOST = 253
LONGEST = 4096

# What runs there gets the container's root directory (O_PATH), and returns descriptors.
Work = Callable[[int], list[int]]


def run_inside(
    pid: int, work: Work, *, keep: tuple[int, ...] = (), as_root: bool = False
) -> list[int]:
    """Run @work in the mount namespace of process @pid; copies of the descriptors it returns.

    With @as_root it has the rights of the root of the container's user namespace, and no others. All
    modules that it needs are imported before. The caller closes the descriptors. @keep lists
    descriptors that @work uses. Raises HostError with the reason when it raises OSError.
    """
    ours, theirs = socket.socketpair()
    root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    with ours, theirs:
        try:
            child = fork(
                lambda: _work(theirs, pid, root, work, as_root=as_root),
                keep=(theirs.fileno(), root, *keep),
            )
        finally:
            os.close(root)
        theirs.close()
        with child:
            data, found, _, _ = socket.recv_fds(ours, LONGEST, MOST)
            code = child.wait()
    if not data or code:
        reason = json.loads(data) if data else f"exit code {code}"
        for fd in found:
            os.close(fd)
        raise HostError(f"Failed to work on the mounts of the container: {reason}")
    return found


def _work(answer: socket.socket, pid: int, root: int, work: Work, *, as_root: bool) -> int:
    # A module that is not loaded yet would be looked for among the container's files.
    for importers in (sys.meta_path, sys.path_hooks, sys.path):
        importers.clear()
    try:
        mounts.enter(pid, root, as_root=as_root)
        found = work(root)
        if len(found) > MOST:
            raise OSError(errno.E2BIG, f"{len(found)} mounts are too many")
        socket.send_fds(answer, [b"{}"], found)
    except OSError as error:
        place = f" ({error.filename})" if error.filename else ""
        with suppress(OSError):
            answer.send(json.dumps(f"{error.strerror}{place}").encode()[:LONGEST])
        return 1
    return 0


def clone_mounts(pid: int, places: list[tuple[str, int]]) -> list[int]:
    """Mounts at @places of the container, each by itself, so that nothing hides what is in it.

    With each place comes the device that has to be there. Raises HostError.
    """
    if not places:
        return []

    def work(root: int) -> list[int]:
        found = []
        for place, device in places:
            fd = mounts.open_in_root(root, place)
            if os.fstat(fd).st_dev != device:
                raise OSError(errno.EBUSY, "another mount covers it", place)
            found.append(mounts.clone(fd))
        return found

    return run_inside(pid, work)
