# SPDX-License-Identifier: LGPL-2.1-or-later
"""`lxc-cr prune [NAME]`."""

from __future__ import annotations

import argparse

from ..errors import UsageError
from ..session import Session
from . import not_negative

HELP = "Remove images that no rule keeps; tagged ones only with --tagged."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("name", metavar="NAME", nargs="?", help="only those of this container")
    parser.add_argument(
        "--keep-last", type=not_negative, metavar="N", help="keep the newest N of each container"
    )
    parser.add_argument(
        "--keep-days", type=not_negative, metavar="N", help="keep those of the last N days"
    )
    parser.add_argument("--tagged", action="store_true", help="remove tagged ones too")
    parser.add_argument("--dry-run", action="store_true", help="only say what would go")


def run(session: Session) -> int:
    """Run the command; returns its exit code."""
    from ..prune import Rules, superfluous

    arguments = session.arguments
    if arguments.keep_last is None and arguments.keep_days is None:
        raise UsageError(
            "Nothing says which images to keep", hint="Give --keep-last, --keep-days or both"
        )
    session.journals()
    store = session.store()
    rules = Rules(arguments.keep_last, arguments.keep_days, arguments.tagged)
    images = [i for i in store.images() if arguments.name in (None, i.container)]
    gone = []
    for image in superfluous(images, rules):
        if session.is_pending(image):
            continue
        with session.passing_over_used():
            if not arguments.dry_run:
                store.remove(image)
            gone.append(image)
    names = [f"{image.container}@sha256:{image.digest[:12]}" for image in gone]
    verb = "Would remove" if arguments.dry_run else "Removed"
    session.report.result(
        {
            "command": "prune",
            "dry_run": arguments.dry_run,
            "digests": [f"sha256:{image.digest}" for image in gone],
        },
        text="\n".join(f"{verb} {name}" for name in names) or "Nothing to remove",
    )
    return 0
