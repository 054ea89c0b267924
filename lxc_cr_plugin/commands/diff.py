# SPDX-License-Identifier: LGPL-2.1-or-later
"""`lxc-cr diff A B`."""

from __future__ import annotations

import argparse

from ..session import Session

HELP = "Say what differs between two images: processes, descriptors, memory, files, network."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("old", metavar="A", help="an image")
    parser.add_argument("new", metavar="B", help="another one, of the same container or not")


def run(session: Session) -> int:
    """Run the command; returns its exit code."""
    from contextlib import ExitStack

    from ..diff import Side, compare
    from ..image import verify_by_engine, verify_records
    from ..listing_diff import diff_text
    from ..store import Reference

    session.journals()
    store = session.store()
    images = [
        store.resolve(Reference.parse(text))
        for text in (session.arguments.old, session.arguments.new)
    ]
    with ExitStack() as undo:
        sides = []
        for image in images:
            manifest = image.manifest()
            with session.report.step("verify", f"Verify {image.reference()}"):
                verify_records(image, manifest)
                verify_by_engine(image, listener=session.report)
            sides.append(Side(image, manifest))
            undo.callback(sides[-1].close)
        with session.report.step("compare", "Compare the images"):
            found = compare((sides[0], sides[1]))
    names = [f"{image.container}@sha256:{image.digest[:12]}" for image in images]
    session.report.result(
        {"command": "diff", "old": names[0], "new": names[1], **found},
        text=diff_text(found, names=(names[0], names[1])),
    )
    return 0
