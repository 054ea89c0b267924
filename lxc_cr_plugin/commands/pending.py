# SPDX-License-Identifier: LGPL-2.1-or-later
"""`lxc-cr pending NAME [REF]`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ..errors import StoreError, UsageError
from ..session import Session

if TYPE_CHECKING:
    from ..store import Reference

HELP = "Show or say what a container resumes from at its next start."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("name", metavar="NAME", help="the container")
    parser.add_argument("reference", metavar="REF", nargs="?", help="resume from this image")
    parser.add_argument(
        "--clear", action="store_true", help="let the next start be an ordinary one"
    )


def run(session: Session) -> int:
    """Run the command; returns its exit code."""
    from .. import pending
    from ..checkpoint import refuse_without_hooks
    from ..container import refuse_undefined
    from ..store import Reference

    arguments = session.arguments
    if arguments.clear and arguments.reference:
        raise UsageError("--clear and an image exclude each other")
    container = session.container()
    refuse_undefined(container)
    store, journals = session.store(), session.journals(leave=arguments.name)
    with journals.locked(container=container.name, lxcpath=container.lxcpath):
        if arguments.clear:
            pending.clear(container.directory)
        if arguments.reference is not None:
            wanted = Reference.parse(arguments.reference, container=container.name)
            refuse_without_hooks(container)
            pending.set_pending(container.directory, store.resolve(wanted))
        reference = pending.pending(container.directory)
    found = None
    if reference:
        try:
            found = store.resolve(reference).reference()
        except StoreError as error:
            session.report.warning(f"{error}: the next start will fail")
    session.report.result(
        {
            "command": "pending",
            "container": container.name,
            "image": found,
            "digest": digest_of(reference),
        },
        text=f"The next start of container '{container.name}' "
        + (f"resumes from {found or reference}" if reference else "is an ordinary one"),
    )
    return 0


def digest_of(reference: Reference | None) -> str | None:
    """The digest as machines read it."""
    return f"sha256:{reference.digest}" if reference else None
