# SPDX-License-Identifier: LGPL-2.1-or-later
"""`lxc-cr inspect REF`."""

from __future__ import annotations

import argparse

from ..session import Session

HELP = "Verify an image and show what it holds."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("reference", metavar="REF", help="the image")


def run(session: Session) -> int:
    """Run the command; returns its exit code."""
    from .. import network
    from ..image import read_records, verify_by_engine, verify_pages, verify_records
    from ..listing import image_as_json, image_text
    from ..store import Reference

    session.journals()
    image = session.store().resolve(Reference.parse(session.arguments.reference))
    manifest = image.manifest()
    with session.report.step("verify", f"Verify {image.reference()}"):
        verify_records(image, manifest)
        verify_pages(image, manifest)
        verify_by_engine(image, listener=session.report)
    records = read_records(image.path)
    found = network.load(image, manifest)
    session.report.result(
        {"command": "inspect", **image_as_json(image, manifest, records, found)},
        text=image_text(image, manifest, records, found),
    )
    return 0
