# SPDX-License-Identifier: LGPL-2.1-or-later
"""`lxc-cr clone REF NEWNAME...`."""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import FRESH, KEEP
from ..errors import (
    Cancelled,
    EngineDied,
    HostError,
    LxcCrError,
    RestartError,
    UsageError,
    os_errors,
)
from ..run import ending
from ..session import Session
from . import not_negative, replacement
from .restart import add_mount_argument, sources_of

if TYPE_CHECKING:
    from subprocess import Popen

    from ..clone import Own
    from ..container import Container

HELP = "Make other containers that start from an image, each with its own name, files and network."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("reference", metavar="REF", help="the image")
    parser.add_argument("names", metavar="NEWNAME", nargs="+", help="names of the new containers")
    parser.add_argument(
        "-n",
        "--count",
        metavar="COUNT",
        type=not_negative,
        help="make so many: NEWNAME-1, NEWNAME-2 and so on",
    )
    parser.add_argument(
        "--no-start",
        action="store_true",
        help="only make them; `lxc-cr restart NEWNAME` starts one from the image later",
    )
    parser.add_argument(
        "--like",
        metavar="CONTAINER",
        help="the container of this host whose configuration they have (default: the one that the "
        "image is of)",
    )
    parser.add_argument(
        "--bridge",
        metavar="WHICH=NEW",
        type=replacement,
        action="append",
        default=[],
        help="as for restart, and as long as the clone has this configuration",
    )
    parser.add_argument(
        "--network",
        choices=(FRESH, KEEP),
        help="whether they keep the addresses that the other container has on interfaces that lead out "
        "(keep), or begin without them and the routes over them (fresh, the default); MAC addresses are "
        "always their own",
    )
    add_mount_argument(parser)


def run(session: Session) -> int:
    """Run the command; returns its exit code."""
    arguments = session.arguments
    names = list(arguments.names)
    if arguments.count is not None:
        if len(names) != 1 or not arguments.count:
            raise UsageError("-n COUNT makes clones of one NEWNAME, and at least one")
        names = [f"{names[0]}-{number}" for number in range(1, arguments.count + 1)]
    if len(set(names)) != len(names):
        raise UsageError("A name is given twice")
    return clone_one(session, names[0]) if len(names) == 1 else clone_all(session, names)


def clone_one(session: Session, name: str) -> int:
    """Make one clone, and start it."""
    from ..clone import make, remove, source_of
    from ..container import STOPPED
    from ..snapshot import KEEP as KEEP_FILES
    from ..store import Reference

    journals = session.journals()
    store = session.store()
    image = store.resolve(Reference.parse(session.arguments.reference))
    like = source_of(session.of(name=session.arguments.like or image.container).container())
    clone = session.of(name=name)
    container = clone.container()
    own = own_of(session, like)
    home, lxcpath = container.directory, Path(container.lxcpath)
    with ExitStack() as undo:
        with (
            journals.locked(container=name, lxcpath=container.lxcpath),
            session.report.step("clone", f"Make container '{name}'"),
        ):
            make(image, image.manifest(), like=like, name=name, lxcpath=lxcpath, own=own)
            undo.callback(remove, home)
        result: dict[str, Any] = {"command": "clone", "container": name, "path": str(home)}
        text = f"Made container '{name}' from {image.reference()}"
        if session.arguments.no_start:
            store.copy(image, container=name)
        else:
            try:
                done = clone.start_from(image, files=KEEP_FILES, clone=True)
            except BaseException:
                if clone.container().state() != STOPPED:
                    undo.pop_all()  # it runs: nobody takes its files away
                raise
            result |= {"restart": done.as_json()}
            text += f"\n{done.summary(name)}"
        undo.pop_all()
    session.report.result(result, text=text)
    return 0


def own_of(session: Session, like: Container) -> Own:
    """What the options say of the clone; raises RestartError when that makes no sense for @like."""
    from ..clone import Own
    from ..restore import refuse_unknown

    sources, network = sources_of(session.arguments.mount), session.arguments.network
    settings = {"clone_network": network} if network else {}
    own = Own(
        network=network or session.policy_of(like.directory).clone_network,
        bridges=dict(session.arguments.bridge),
        sources=sources,
        # Its first image is of the other container, and names what that one has mounted.
        settings=settings | ({"other_mounts": sorted(sources)} if sources else {}),
    )
    refuse_unknown(like, own.sources, own.bridges)
    return own


def clone_all(session: Session, names: list[str]) -> int:
    """Make several at a time, each by a command of its own. One that fails leaves the others alone."""
    import subprocess

    commands: dict[str, Popen[bytes]] = {}
    with ExitStack() as undo:
        for name in names:
            with os_errors(HostError, f"Failed to execute a command that makes clone '{name}'"):
                command = subprocess.Popen(_command(session, name), stdout=subprocess.PIPE)
            commands[name] = undo.enter_context(command)
            # With SIGTERM it leaves nothing; one that has ended does not mind.
            undo.callback(command.terminate)
        return session.each(names, lambda name: await_clone(session, name, commands[name]))


def await_clone(session: Session, name: str, command: Popen[bytes]) -> None:
    """Tell what the command that makes clone @name says at its end, or raise it."""
    output, _ = command.communicate()
    end = _last_event(output)
    match end.pop("event", None):
        case "result":
            text = f"Container '{name}' runs from the image"
            if session.arguments.no_start:
                text = f"Made container '{name}'"
            session.report.result(end, text=text)
        case "error":
            message = f"Clone '{name}' was not made: {end.pop('message')}"
            error = LxcCrError.from_json({**end, "message": message})
            # A signal for that command alone is no reason to give up the others.
            raise RestartError(message) if isinstance(error, Cancelled) else error
        case _:
            raise EngineDied(
                f"The command that makes clone '{name}' {ending(command.returncode)} and has not "
                "said how it went"
            )


def _last_event(output: bytes) -> dict[str, Any]:
    """What a command said last with --json; one that was killed may leave half a line."""
    import json

    *lines, _ = output.split(b"\n")
    event: dict[str, Any] = json.loads(lines[-1]) if lines else {}
    return event


def _command(session: Session, name: str) -> list[str]:
    """The words of the command that makes one clone."""
    given = vars(session.arguments)
    words = [sys.executable, "-m", "lxc_cr_plugin", "--json"]
    for option in ("lxcpath", "store", "config"):
        if given.get(option):
            words += [f"--{option}", str(given[option])]
    words += ["clone", session.arguments.reference, name]
    words += [f"--like={given['like']}"] if given["like"] else []
    words += [f"--bridge={which}={new}" for which, new in session.arguments.bridge]
    words += [f"--mount={text}" for text in session.arguments.mount]
    words += [f"--network={given['network']}"] if given["network"] else []
    return words + ["--no-start"] * session.arguments.no_start
