# SPDX-License-Identifier: LGPL-2.1-or-later
"""`lxc-cr ls [NAME]`."""

from __future__ import annotations

import argparse

from ..session import Session

HELP = "List images."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("name", metavar="NAME", nargs="?", help="only those of this container")


def run(session: Session) -> int:
    """Run the command; returns its exit code."""
    from ..listing import rows, table

    session.journals()
    found = rows(session.store().images(), container=session.arguments.name)
    session.report.result({"command": "ls", "images": found}, text=table(found))
    return 0
