# SPDX-License-Identifier: LGPL-2.1-or-later
"""`lxc-cr repair NAME --keep | --undo`."""

from __future__ import annotations

import argparse

from ..errors import ContainerError
from ..session import Session

HELP = "Say which files a container is to have after a restart that was cut off."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("name", metavar="NAME", help="the container, stopped")
    choice = parser.add_mutually_exclusive_group(required=True)
    choice.add_argument("--keep", action="store_true", help="those that are there now")
    choice.add_argument(
        "--undo", action="store_true", help="those from before the restart; changes since are lost"
    )


def run(session: Session) -> int:
    """Run the command; returns its exit code."""
    from .. import unfinished
    from ..container import STOPPED

    container = session.container()
    journals = session.journals()
    with journals.locked(container=container.name, lxcpath=container.lxcpath):
        if container.defined() and container.state() != STOPPED:
            raise ContainerError(
                f"Container '{container.name}' is running",
                hint=f"Stop it first with `lxc-stop {container.address}`",
            )
        journals.forget_restart(container=container.name, lxcpath=container.lxcpath)
        done = unfinished.repair(
            container.directory, stopped=lambda: True, confirmed=bool(session.arguments.keep)
        )
    session.report.result(
        {"command": "repair", "container": container.name, "done": done or None},
        text=f"Container '{container.name}': {done or 'nothing was left to repair'}",
    )
    return 0
