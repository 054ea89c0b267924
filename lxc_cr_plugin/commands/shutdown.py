# SPDX-License-Identifier: LGPL-2.1-or-later
"""`lxc-cr shutdown`: for the moment before LXC stops all containers."""

from __future__ import annotations

import argparse

from ..config import CHECKPOINT, SHUTDOWN_TAG
from ..errors import LxcCrError, cancelled
from ..session import Session, open_container

HELP = "Checkpoint, for their next start, all running containers whose policy says so."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("--dry-run", action="store_true", help="only say which")


def run(session: Session) -> int:
    """Run the command; the exit code is that of the first container that could not be saved.

    A container that cannot be saved is left to LXC, which stops it, and does not hold up the others.
    """
    from ..container.lxc import running

    saved = []

    def save_one(name: str) -> None:
        try:
            if not wants_checkpoint(session, name):
                return
            if not session.arguments.dry_run:
                save(session, name)
        except LxcCrError as error:
            if not cancelled(error):
                session.report.warning(f"Container '{name}' was not saved:")
            raise
        saved.append(name)

    code = session.each(running(session.settings.lxcpath), save_one)
    verb = "Would save" if session.arguments.dry_run else "Saved"
    session.report.result(
        {"command": "shutdown", "containers": saved, "dry_run": session.arguments.dry_run},
        text=f"{verb} {len(saved)} containers" + "".join(f" {name}" for name in saved),
    )
    return code


def wants_checkpoint(session: Session, name: str) -> bool:
    """What the policy of the container says."""
    container = open_container(name, session.settings.lxcpath)
    return session.policy_of(container.directory).at_shutdown == CHECKPOINT


def save(session: Session, name: str) -> None:
    """Checkpoint one container and let its next start resume."""
    from ..store import Reference

    one = session.of(name=name)
    done = one.make_image(
        Reference(name, SHUTDOWN_TAG),
        stop=True,
        buffered=False,
        files=one.policy.files,
        resume=True,
        # What a killed rollback has left stopped is started when the machine is up again.
        journals=one.journals(finish=False),
    )
    session.report.info(done.summary(stopped=True))
