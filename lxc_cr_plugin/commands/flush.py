# SPDX-License-Identifier: LGPL-2.1-or-later
"""`lxc-cr flush REF`."""

from __future__ import annotations

import argparse

from ..session import Session

HELP = "Write a buffered image to the disk."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("reference", metavar="REF", help="the image")


def run(session: Session) -> int:
    """Run the command; returns its exit code."""
    from ..store import Reference

    session.journals()
    store = session.store()
    image = store.flush(store.resolve(Reference.parse(session.arguments.reference)))
    session.report.result(
        {"command": "flush", "digest": f"sha256:{image.digest}", "path": str(image.path)},
        text=f"Image {image.reference()} is in {image.path}",
    )
    return 0
