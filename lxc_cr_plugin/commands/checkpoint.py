# SPDX-License-Identifier: LGPL-2.1-or-later
"""`lxc-cr checkpoint NAME`."""

from __future__ import annotations

import argparse

from ..config import DROP, IGNORE, REFUSE
from ..errors import UsageError
from ..session import Session

HELP = "Checkpoint a running container."


def add_attached(parser: argparse.ArgumentParser) -> None:
    """The option about processes from outside."""
    parser.add_argument(
        "--attached",
        choices=(REFUSE, DROP),
        help="what to do about processes that came in by lxc-attach: refuse the checkpoint, or "
        f"leave them out of the image; with --stop they end too (default: {REFUSE})",
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("name", metavar="NAME", help="the container")
    parser.add_argument("--stop", action="store_true", help="end it at the instant of the image")
    parser.add_argument("--image", metavar="REF", help="name of the image (default: NAME:latest)")
    parser.add_argument(
        "--buffered", action="store_true", help="leave the image in memory until `lxc-cr flush`"
    )
    parser.add_argument(
        "--files",
        choices=("snapshot", "none"),
        help="take the container's files too, or not (default: snapshot)",
    )
    add_outside_locks(parser)
    add_attached(parser)
    parser.add_argument(
        "--resume-at-start",
        action=argparse.BooleanOptionalAction,
        help="with --stop: let the next start of the container, by whatever means, resume from it",
    )


def add_outside_locks(parser: argparse.ArgumentParser) -> None:
    """The option that `checkpoint` and `check` have in common."""
    parser.add_argument(
        "--outside-locks",
        choices=(REFUSE, IGNORE),
        help="what to do about a process outside that has locked a file which the container has "
        "locked too: refuse (the default), or ignore it and note it in the image",
    )


def run(session: Session) -> int:
    """Run the command; returns its exit code."""
    from ..store import Reference

    arguments = session.arguments
    reference = Reference.given(arguments.image, container=arguments.name)
    if reference.digest:
        raise UsageError("A new image cannot be given its digest", hint="Write --image NAME:TAG")
    resume = arguments.resume_at_start
    if resume and not arguments.stop:
        raise UsageError(
            "--resume-at-start needs --stop",
            hint="To resume a container later from an image of now, use `lxc-cr pending`",
        )
    if resume is None:
        # As a policy for all containers it concerns those that include the hooks.
        policy = arguments.stop and session.policy.resume_at_start
        resume = policy and session.container().resumes()
    if resume and arguments.buffered:
        session.report.warning("The image is in memory: after a reboot the next start will fail")
    done = session.make_image(
        reference,
        stop=arguments.stop,
        buffered=arguments.buffered,
        files=arguments.files or session.policy.files,
        resume=bool(resume),
    )
    session.report.result(
        {"command": "checkpoint", **done.as_json()}, text=done.summary(stopped=arguments.stop)
    )
    return 0
