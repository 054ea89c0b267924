# SPDX-License-Identifier: LGPL-2.1-or-later
"""`lxc-cr restart NAME [REF]`."""

from __future__ import annotations

import argparse

from ..clocks import CONTINUE, WALL
from ..lease import LeaseChoice, LeasePolicy
from ..session import Session
from . import replacement

HELP = "Restart a stopped container from an image."
ALIASES = ("restore",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("name", metavar="NAME", help="the container")
    parser.add_argument("reference", metavar="REF", nargs="?", help="default: NAME:latest")
    parser.add_argument(
        "--files",
        choices=("rollback", "keep", "refuse"),
        help="what to do about files that were changed since the checkpoint: bring them back "
        "(the default), leave them, or refuse to restart",
    )
    parser.add_argument(
        "--verify",
        choices=("quick", "full"),
        help="how to find them: by their times (the default), or by reading all of them",
    )
    parser.add_argument(
        "--lease",
        metavar="WHOM",
        help="what is left to the holder of a file lease that is being broken: remaining (what was "
        "left, the default), holder (at least a whole lease-break-time), breaker (nothing), +SECONDS more",
    )
    parser.add_argument(
        "--lease-of",
        metavar="OBJECT=WHOM",
        action="append",
        default=[],
        help="the same for one of them: an object number of `lxc-cr inspect`, or a path in the "
        "container; may be given several times",
    )
    parser.add_argument(
        "--time",
        choices=(CONTINUE, WALL),
        help="what it sees of the time that it was away: nothing, but on the wall clock (continue, "
        "the default), or all of it (wall): its clocks include it, and what came due ends at once",
    )
    parser.add_argument(
        "--bridge",
        metavar="WHICH=NEW",
        type=replacement,
        action="append",
        default=[],
        help="use bridge NEW instead of bridge WHICH, or for interface WHICH of the container; "
        "may be given several times",
    )
    add_mount_argument(parser)


def add_mount_argument(parser: argparse.ArgumentParser) -> None:
    """The option --mount; `sources_of` reads it."""
    parser.add_argument(
        "--mount",
        metavar="PLACE=SOURCE",
        action="append",
        default=[],
        help="mount the directory SOURCE of the host at PLACE of the container, instead of what its "
        "configuration mounts there; may be given several times",
    )


def sources_of(texts: list[str]) -> dict[str, str | None]:
    """What to mount where, from the arguments of --mount. Raises UsageError."""
    from pathlib import Path, PurePosixPath

    from ..errors import UsageError

    found: dict[str, str | None] = {}
    for text in texts:
        place, equals, source = text.partition("=")
        if not equals or not place.startswith("/") or not source.startswith("/"):
            raise UsageError(f"'{text}' is not PLACE=SOURCE", hint="Both are absolute paths")
        if not Path(source).exists():
            raise UsageError(f"There is no '{source}' to be mounted at '{place}'")
        found[str(PurePosixPath(place))] = source
    return found


def run(session: Session) -> int:
    """Run the command; returns its exit code."""
    from ..store import Reference

    arguments = session.arguments
    policy = session.policy
    lease = LeasePolicy.parse(arguments.lease or policy.lease)
    choices = [LeaseChoice.parse(text) for text in arguments.lease_of]
    reference = Reference.given(arguments.reference, container=arguments.name)
    done = session.start_from(
        session.store().resolve(reference),
        files=arguments.files or policy.restart_files,
        full=(arguments.verify or policy.verify) == "full",
        lease=lease,
        lease_choices=choices,
        time_policy=arguments.time,
        sources=sources_of(arguments.mount),
        bridges=dict(arguments.bridge),
    )
    session.report.result(
        {"command": "restart", **done.as_json()}, text=done.summary(arguments.name)
    )
    return 0
