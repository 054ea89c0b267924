# SPDX-License-Identifier: LGPL-2.1-or-later
"""`lxc-cr verify REF`."""

from __future__ import annotations

import argparse

from ..session import Session

HELP = "Read all of an image, files and memory: is it as it was written."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("reference", metavar="REF", help="the image")


def run(session: Session) -> int:
    """Run the command; returns its exit code."""
    from ..image import verify_all
    from ..store import Reference

    session.journals()
    image = session.store().resolve(Reference.parse(session.arguments.reference))
    with session.report.step("verify", f"Read all of {image.reference()}"):
        verify_all(image, listener=session.report)
    session.report.result(
        {"command": "verify", "digest": f"sha256:{image.digest}"},
        text=f"Image {image.reference()} is as it was written",
    )
    return 0
