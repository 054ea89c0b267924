# SPDX-License-Identifier: LGPL-2.1-or-later
"""`lxc-cr repair [NAME [--keep | --undo]]`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ContainerError, RestartError, UsageError
from ..session import Session, default_lxcpath

if TYPE_CHECKING:
    from ..container import Container

HELP = "Finish what commands that were cut off have left; with NAME also say which files count."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("name", metavar="NAME", nargs="?", help="only this container")
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument(
        "--keep",
        action="store_true",
        help="it is stopped, a restart was cut off: it has the files that are there now",
    )
    choice.add_argument(
        "--undo",
        action="store_true",
        help="it has those from before that restart; changes since are lost",
    )


def run(session: Session) -> int:
    """Run the command; returns its exit code."""
    arguments = session.arguments
    if not arguments.keep and not arguments.undo:
        return repair_all(session, arguments.name)
    if not arguments.name:
        raise UsageError("--keep and --undo are said of one container: NAME is missing")
    return repair_files(session)


def repair_all(session: Session, only: str | None) -> int:
    """What every command begins with; ContainerError or RestartError when something is left to do."""
    from .. import unfinished

    if only:
        refuse_no_directory(session.container())
    journals = session.journals(finish=False)
    failed = session.finish_rollbacks(journals)
    lxcpath = session.settings.lxcpath or default_lxcpath()
    left = []
    for note in sorted(Path(lxcpath or "/nonexistent").absolute().glob(f"*/{unfinished.NOTE}")):
        name, path = note.parent.name, str(note.parent.parent)
        # Where another command is at work nothing is left.
        with journals.locked_if_free(container=name, lxcpath=path) as free:
            if free and note.exists() and only in (None, name):
                left.append(name)
    if left:
        names = ", ".join(f"'{name}'" for name in left)
        raise ContainerError(
            f"The files of {names} are still those of a restart that was cut off",
            hint="The warnings above say why; `lxc-cr repair NAME --keep` or `--undo` decides",
        )
    if failed:
        raise RestartError(
            "Stopped, because a rollback was cut off: " + ", ".join(f"'{name}'" for name in failed),
            hint="The warnings above say why, and how to start them",
        )
    session.report.result(
        {"command": "repair", "container": only, "done": None}, text="Nothing is left to repair"
    )
    return 0


def refuse_no_directory(container: Container) -> None:
    """Raise ContainerError when there is nothing that could have been left; else a lock would be."""
    from ..container import no_such

    if not container.directory.is_dir():
        raise no_such(container)


def repair_files(session: Session) -> int:
    """Decide which files the container has."""
    from .. import unfinished
    from ..container import STOPPED

    container = session.container()
    refuse_no_directory(container)
    journals = session.journals(leave=container.name)
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
