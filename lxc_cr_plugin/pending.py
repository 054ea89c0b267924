# SPDX-License-Identifier: LGPL-2.1-or-later
"""A pending restart: which image a container is to be resumed from at its next start.

It is a file beside the container's configuration, where a hook of a shell can look for it without
starting anything, and which goes when the container goes. In it is one reference, by digest: a tag
may be moved in between. A rollback that is about to end what runs adds a line: until it is over, the
next command of lxc-cr has to start the container.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from .errors import ContainerError, HostError, os_message
from .store import Image, Reference
from .trusted import Untrusted, read_trusted, remove_durably, write_durably

# The hooks of config/lxc/resume.conf know these names too.
MARK = "lxc-cr.pending"
LOG = "lxc-cr.log"
PLACE = "lxc-cr.resume"

# The line of a rollback.
ROLLBACK = "rollback"


class Mark(NamedTuple):
    """What the next start resumes from; with `rollback` it must not wait for somebody who starts it."""

    reference: Reference
    rollback: bool


def mark_of(directory: Path) -> Path:
    """The file for the container that lives in @directory."""
    return directory / MARK


def set_pending(directory: Path, image: Image, *, rollback: bool = False) -> None:
    """Let the next start resume from @image; a @rollback makes it itself. Raises HostError."""
    reference = Reference(image.container, None, image.digest)
    lines = [str(reference), *([ROLLBACK] if rollback else [])]
    try:
        write_durably(mark_of(directory), "".join(f"{line}\n" for line in lines).encode())
    except OSError as error:
        raise _failed("write", directory, error) from error


def clear(directory: Path) -> bool:
    """Let the next start be an ordinary one; False when it would have been. Raises HostError."""
    present = mark_of(directory).exists()
    try:
        remove_durably(mark_of(directory))
    except OSError as error:
        raise _failed("remove", directory, error) from error
    return present


def pending(directory: Path) -> Reference | None:
    """What the next start resumes from; None: nothing.

    Raises HostError when that cannot be told, ContainerError when somebody else may have said it.
    """
    mark = read(directory)
    return mark.reference if mark else None


def read(directory: Path) -> Mark | None:
    """The whole mark; raises the same."""
    path = mark_of(directory)
    try:
        text = read_trusted(path).decode(errors="replace").strip()
    except FileNotFoundError:
        return None
    except Untrusted as error:
        raise ContainerError(
            f"'{path}' {error}", hint="Look who wrote it, and remove it"
        ) from error
    except OSError as error:
        raise _failed("read", directory, error) from error
    first, _, rest = text.partition("\n")
    reference = Reference.parse(first)
    if not reference.digest or rest not in ("", ROLLBACK):
        raise ContainerError(f"'{path}' names no image by its digest", hint="Remove it")
    return Mark(reference, rest == ROLLBACK)


def _failed(verb: str, directory: Path, error: OSError) -> HostError:
    return HostError(f"Failed to {verb} '{mark_of(directory)}': {os_message(error)}")
