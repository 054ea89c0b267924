# SPDX-License-Identifier: LGPL-2.1-or-later
"""Everything that can go wrong, one class per decision that a caller can take.

LxcCrError                  never raised itself                             exit code
├── UsageError              the command or the configuration is wrong       2
├── ContainerError          no such container, not running, already running 3
├── UnsupportedError        holds something that cannot be checkpointed     4
├── IsolationError          shares something with a process outside         5
├── ImageError              damaged image, or one this version cannot read  6
├── HostError               this machine lacks something                    7
├── StoreError              no such reference, store locked, disk full      8
├── CheckpointError         the checkpoint failed, the container runs on    9
├── RestartError            the restart failed, the container is stopped    10
├── EngineDied              the engine was killed or crashed                11
└── Cancelled               interrupted by a signal or by the user          130

A message says what failed, on which object of which process, and why; the hint says what to do.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple


class Obstacle(NamedTuple):
    """One reason why a container cannot be checkpointed now, as a value.

    `kind` is "unsupported", "isolation" or "host"; `pid` is the number the container sees, 0 when
    no process is concerned; `object` is the kind of kernel object, for machines.
    """

    kind: str
    message: str
    hint: str | None = None
    pid: int = 0
    comm: str | None = None
    object: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The members that say something, as the event of `--json`."""
        return {name: value for name, value in self._asdict().items() if value}


class LxcCrError(Exception):
    """Base of all errors of this package; its text is complete without the other members.

    `hint` says what to do; `pid` is the number the container sees (0: none); `object` is the kind
    of kernel object; `errno` is positive, 0 when no system call failed; `obstacles` lists
    everything that was found when more than one thing is in the way.
    """

    exit_code = 1

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        pid: int = 0,
        comm: str | None = None,
        object: str | None = None,
        errno: int = 0,
        obstacles: tuple[Obstacle, ...] = (),
    ) -> None:
        super().__init__(message)
        self.hint = hint
        self.pid = pid
        self.comm = comm
        self.object = object
        self.errno = errno
        self.obstacles = obstacles

    def as_json(self) -> dict[str, Any]:
        """The error as the event of `--json`; members without a value are left out."""
        members = {
            "class": type(self).__name__,
            "exit_code": self.exit_code,
            "message": str(self),
            "hint": self.hint,
            "pid": self.pid,
            "comm": self.comm,
            "object": self.object,
            "errno": self.errno,
            "obstacles": [obstacle.as_json() for obstacle in self.obstacles],
        }
        return {name: value for name, value in members.items() if value}

    @staticmethod
    def from_json(members: Mapping[str, Any]) -> LxcCrError:
        """The error that as_json() of another command of this version has told."""
        given = dict(members)
        name, message, _ = (given.pop(key) for key in ("class", "message", "exit_code"))
        kinds = {kind.__name__: kind for kind in LxcCrError.__subclasses__()}
        obstacles = tuple(Obstacle(**obstacle) for obstacle in given.pop("obstacles", ()))
        return kinds.get(name, LxcCrError)(message, obstacles=obstacles, **given)


class UsageError(LxcCrError):
    """The command line or the configuration file cannot be followed."""

    exit_code = 2


class ContainerError(LxcCrError):
    """The container does not exist, or is not in the state that the command needs."""

    exit_code = 3


class UnsupportedError(LxcCrError):
    """The container holds an object that cannot be dumped or restored."""

    exit_code = 4


class IsolationError(LxcCrError):
    """The container shares an object with a process outside."""

    exit_code = 5


class ImageError(LxcCrError):
    """The image is damaged, or newer than this version."""

    exit_code = 6


class HostError(LxcCrError):
    """This host cannot do it: a kernel feature, a limit, a permission, a missing file."""

    exit_code = 7


class StoreError(LxcCrError):
    """The image store cannot do it: no such reference, locked, full, not safe to use."""

    exit_code = 8


class CheckpointError(LxcCrError):
    """A checkpoint failed; the container runs on."""

    exit_code = 9


class RestartError(LxcCrError):
    """A restart failed; the container is stopped and the image is untouched."""

    exit_code = 10


class EngineDied(LxcCrError):
    """The process of the engine ended without a result, by a signal or a crash."""

    exit_code = 11


class Cancelled(LxcCrError):
    """A signal ended the command; what it had begun was undone."""

    exit_code = 130


def cancelled(error: LxcCrError) -> Cancelled | None:
    """The signal behind @error, if it came while a library took every exception for its own."""
    reason: BaseException | None = error
    while reason is not None and not isinstance(reason, Cancelled):
        reason = reason.__cause__
    return reason


def exit_codes() -> list[tuple[int, str]]:
    """Exit codes and what they mean, in ascending order, for the help text."""
    meanings = [
        (error.exit_code, (error.__doc__ or "").rstrip("."))
        for error in LxcCrError.__subclasses__()
    ]
    return [(0, "Success"), (1, "Internal error"), *sorted(meanings)]


def os_message(error: OSError) -> str:
    """The kernel's text for @error without Python's "[Errno N]" around it."""
    return error.strerror or (os.strerror(error.errno) if error.errno else str(error))


# What any call may meet, and no code expects where it is met.
SCARCE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
SCARCE_HINT = "Raise the limit of this command (ulimit -a), or free some"


@contextmanager
def os_errors(kind: type[LxcCrError], what: str, *, hint: str | None = None) -> Iterator[None]:
    """Turn failed system calls into @kind: "@what: No space left on device: '/some/file'".

    Scarcity has a hint of its own.
    """
    try:
        yield
    except OSError as error:
        name = str(error.filename or "")
        where = f": '{name}'" if name and name not in what else ""
        if error.errno in SCARCE:
            hint = SCARCE_HINT
        raise kind(
            f"{what}: {os_message(error)}{where}", errno=error.errno or 0, hint=hint
        ) from error
