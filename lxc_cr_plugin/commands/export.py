# SPDX-License-Identifier: LGPL-2.1-or-later
"""`lxc-cr export REF [FILE]`."""

from __future__ import annotations

import argparse
import os
import sys

from ..errors import UsageError
from ..session import Session

HELP = "Write an image as one stream."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("reference", metavar="REF", help="the image")
    parser.add_argument("file", metavar="FILE", nargs="?", default="-", help="default: stdout")


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
        export_image(image, sys.stdout.buffer)
        return 0
    with writing(f"Failed to write '{file}'"):
        # An image holds all secrets of a container.
        fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as stream:
            export_image(image, stream)
    session.report.result(
        {"command": "export", "digest": f"sha256:{image.digest}", "file": file},
        text=f"Image {image.reference()} is in {file}",
    )
    return 0
