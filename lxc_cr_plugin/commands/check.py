# SPDX-License-Identifier: LGPL-2.1-or-later
"""`lxc-cr check NAME`."""

from __future__ import annotations

import argparse

from ..session import Session
from .checkpoint import add_attached, add_outside_locks

HELP = "Say what stands in the way of a checkpoint; stops nothing."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("name", metavar="NAME", help="the container")
    add_outside_locks(parser)
    add_attached(parser)


def run(session: Session) -> int:
    """Run the command; returns its exit code."""
    from ..check import examine, find_obstacles, refuse

    container = session.container()
    session.journals()
    found = find_obstacles(
        container,
        examine(container),
        scope=session.scope,
        report=session.report,
    )
    refuse(container, found)
    session.report.result(
        {"command": "check", "container": container.name, "obstacles": 0},
        text=f"Container '{container.name}' can be checkpointed now",
    )
    return 0
