# SPDX-License-Identifier: LGPL-2.1-or-later
"""`lxc-cr import [FILE]`."""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path
from typing import BinaryIO

from ..errors import UsageError
from ..session import Session

HELP = "Verify an exported image and add it to the store."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("file", metavar="FILE", nargs="?", default="-", help="default: stdin")
    parser.add_argument("--tag", help="its tag here (default: latest)")
    parser.add_argument("--buffered", action="store_true", help="leave it in memory")


def run(session: Session) -> int:
    """Run the command; returns its exit code."""
    from ..store import TAG, writing
    from ..transfer import import_image

    arguments = session.arguments
    if arguments.tag and not TAG.fullmatch(arguments.tag):
        raise UsageError(f"'{arguments.tag}' cannot be a tag")
    session.journals()
    store = session.store()
    with contextlib.ExitStack() as undo:
        stream: BinaryIO = sys.stdin.buffer
        if arguments.file != "-":
            with writing(f"Failed to read '{arguments.file}'"):
                stream = undo.enter_context(Path(arguments.file).open("rb"))
        image = import_image(
            stream,
            store=store,
            tag=arguments.tag,
            buffered=arguments.buffered,
            listener=session.report,
        )
    session.report.result(
        {"command": "import", "digest": f"sha256:{image.digest}", "path": str(image.path)},
        text=f"Image {image.reference()} is in {image.path}",
    )
    return 0
