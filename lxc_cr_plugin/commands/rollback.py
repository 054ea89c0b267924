# SPDX-License-Identifier: LGPL-2.1-or-later
"""`lxc-cr rollback NAME [REF]`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ..errors import UsageError
from ..session import Session
from .restart import add_mount_argument, sources_of

if TYPE_CHECKING:
    from ..restore import Restarted
    from ..store import Image

HELP = "Bring a container back to an image, from whatever it is doing."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("name", metavar="NAME", help="the container")
    parser.add_argument("reference", metavar="REF", nargs="?", help="default: NAME:latest")
    parser.add_argument(
        "--no-checkpoint",
        action="store_true",
        help="kill what runs, instead of keeping it as NAME:before-rollback",
    )
    add_mount_argument(parser)


def run(session: Session) -> int:
    """Run the command; returns its exit code."""
    from .. import pending
    from ..rollback import BEFORE, roll_back
    from ..snapshot import ROLLBACK, SNAPSHOT
    from ..store import Reference

    name = session.arguments.name
    reference = Reference.given(session.arguments.reference, container=name)
    if reference.tag == BEFORE and not session.arguments.no_checkpoint:
        raise UsageError(
            f"'{reference}' is about to name what runs now",
            hint="Write --no-checkpoint, or name the image by its digest",
        )

    def kill() -> None:
        container = session.container()
        pending.set_pending(container.directory, target, rollback=True)
        if container.resumes():
            journals.announcement(container.init_pid()).touch(mode=0o600)
        with session.report.step("kill", f"Kill container '{container.name}'"):
            container.kill()

    def end() -> Image:
        made = session.make_image(
            Reference(name, BEFORE),
            stop=True,
            buffered=False,
            # What the way back rewrites must not be lost, whatever other checkpoints leave out.
            files=SNAPSHOT if target.manifest().rootfs is not None else session.policy.files,
            rollback=True,
            journals=journals,
        )
        return made.image

    journals = session.journals(leave=name)
    target, sources = session.store().resolve(reference), sources_of(session.arguments.mount)

    def restart(image: Image) -> Restarted:
        # What ran until now comes back with what it had.
        return session.start_from(
            image,
            files=ROLLBACK,
            sources=sources if image.digest == target.digest else None,
            journals=journals,
        )

    done = roll_back(
        session.container(),
        image=target,
        journals=journals,
        end=kill if session.arguments.no_checkpoint else end,
        restart=restart,
        report=session.report,
    )
    session.report.result({"command": "rollback", **done.as_json()}, text=done.summary(name))
    return 0
