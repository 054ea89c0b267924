# SPDX-License-Identifier: LGPL-2.1-or-later
"""A pending restart: which image a container is to be resumed from at its next start.

It is a file beside the container's configuration, where a hook of a shell can look for it without
starting anything, and which goes when the container goes. In it is one reference, by digest: a tag
may be moved in between.
"""

from __future__ import annotations

from pathlib import Path

from .errors import ContainerError, HostError, os_message
from .store import Image, Reference
from .trusted import Untrusted, read_trusted, remove_durably, write_durably

# The hooks of config/lxc/resume.conf know these names too.
MARK = "lxc-cr.pending"
LOG = "lxc-cr.log"
PLACE = "lxc-cr.resume"


def mark_of(directory: Path) -> Path:
    """The file for the container that lives in @directory."""
    return directory / MARK


def set_pending(directory: Path, image: Image) -> None:
    """Let the next start resume from @image; raises HostError."""
    reference = Reference(image.container, None, image.digest)
    try:
        write_durably(mark_of(directory), f"{reference}\n".encode())
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
    reference = Reference.parse(text)
    if not reference.digest:
        raise ContainerError(f"'{path}' names no image by its digest", hint="Remove it")
    return reference


def _failed(verb: str, directory: Path, error: OSError) -> HostError:
    return HostError(f"Failed to {verb} '{mark_of(directory)}': {os_message(error)}")
