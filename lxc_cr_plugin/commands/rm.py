# SPDX-License-Identifier: LGPL-2.1-or-later
"""`lxc-cr rm REF`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ..session import Session

if TYPE_CHECKING:
    from ..store import Reference, Store

HELP = "Remove images and the tags that point to them."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("reference", metavar="REF", nargs="+", help="the images")


def run(session: Session) -> int:
    """Run the command; returns its exit code."""
    from ..store import Reference

    references = [Reference.parse(text) for text in session.arguments.reference]
    session.journals()
    store = session.store()
    return session.each(references, lambda reference: remove(session, store, reference))


def remove(session: Session, store: Store, reference: Reference) -> None:
    """Remove one image."""
    image = store.resolve(reference)
    session.refuse_pending(image)
    store.remove(image)
    session.report.result(
        {"command": "rm", "digest": f"sha256:{image.digest}", "tags": list(image.tags)},
        text=f"Removed {image.container}@sha256:{image.digest[:12]}"
        + "".join(f" {image.container}:{tag}" for tag in image.tags),
    )
