# SPDX-License-Identifier: LGPL-2.1-or-later
"""Restarts that were cut off together with the machine: whose files are found again by a note.

The journal is in /run, which a power cut takes along. What was kept of the files is not; this note is
beside the container's configuration, where a hook of a shell and every command can look for it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from . import snapshot
from .errors import ContainerError, HostError, os_message
from .trusted import Untrusted, read_trusted, remove_durably, write_durably

# The hooks of config/lxc/resume.conf know this name too.
NOTE = "lxc-cr.files"


def note(directory: Path, kept: Path) -> None:
    """Note for the container that lives in @directory that @kept is about to be made; HostError."""
    try:
        write_durably(directory / NOTE, os.fsencode(kept))
    except OSError as error:
        raise HostError(f"Failed to write '{directory / NOTE}': {os_message(error)}") from error


def forget(directory: Path) -> None:
    """Note that nothing is kept any more. Raises OSError."""
    remove_durably(directory / NOTE)


def noted(directory: Path) -> Path | None:
    """What a restart has kept for the container in @directory; raises ContainerError, OSError."""
    path = directory / NOTE
    try:
        return Path(os.fsdecode(read_trusted(path)))
    except FileNotFoundError:
        return None
    except Untrusted as error:
        raise ContainerError(
            f"'{path}' {error}", hint="Look who wrote it, and remove it"
        ) from error


def repair(directory: Path, *, stopped: Callable[[], bool], confirmed: bool | None = None) -> str:
    """End what a restart that was cut off has begun with the files; what was done, for the user.

    @stopped says whether the container in @directory is; @confirmed is as in snapshot.repair().
    Raises LxcCrError or OSError when that cannot be, and the note stays.
    """
    kept = noted(directory)
    if kept is None:
        return ""
    if (
        not confirmed
        and os.path.lexists(kept)
        and not snapshot.is_confirmed(kept)
        and not stopped()
    ):
        raise ContainerError(
            f"Container '{directory.name}' runs on files that a restart had brought back to an image "
            "before it was cut off",
            hint=f"Stop it, then say which files it is to have: `lxc-cr repair {directory.name} "
            "--keep` or `--undo`",
        )
    done = snapshot.repair(kept, confirmed=confirmed)
    forget(directory)
    return done
