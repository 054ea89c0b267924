# SPDX-License-Identifier: LGPL-2.1-or-later
"""`lxc-cr export REF [FILE]`."""

from __future__ import annotations

import argparse
import os
import stat
import sys
from typing import TYPE_CHECKING, BinaryIO

from ..errors import UsageError
from ..session import Session

if TYPE_CHECKING:
    from ..store import Image

HELP = "Write an image as one stream."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("reference", metavar="REF", help="the image")
    parser.add_argument("file", metavar="FILE", nargs="?", default="-", help="default: stdout")


def write_file(image: Image, stream: BinaryIO) -> None:
    """Make a plain file the exported image, durably: the one in the store may go next. OSError."""
    from ..transfer import export_image

    # An image holds all secrets of a container, whoever could read what was here before.
    os.fchmod(stream.fileno(), 0o600)
    stream.truncate(0)
    try:
        export_image(image, stream)
        stream.flush()
        os.fsync(stream.fileno())
    except BaseException:
        # Half an image is of no use, and takes the room that may have been missing.
        stream.truncate(0)
        raise


def run(session: Session) -> int:
    """Run the command; returns its exit code."""
    from ..store import Reference, writing
    from ..transfer import export_image

    session.journals()
    image = session.store().resolve(Reference.parse(session.arguments.reference))
    file = session.arguments.file
    if file == "-":
        if sys.stdout.isatty():
            raise UsageError("An image is not for a terminal", hint="Name a file, or pipe it")
        with (
            writing("Failed to write the image"),
            os.fdopen(os.dup(sys.stdout.fileno()), "wb") as stream,
        ):
            export_image(image, stream)
        return 0
    with writing(f"Failed to write '{file}'"):
        fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as stream:
            if stat.S_ISREG(os.fstat(fd).st_mode):
                write_file(image, stream)
            else:
                export_image(image, stream)
    session.report.result(
        {"command": "export", "digest": f"sha256:{image.digest}", "file": file},
        text=f"Image {image.reference()} is in {file}",
    )
    return 0
