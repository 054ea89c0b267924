# SPDX-License-Identifier: LGPL-2.1-or-later
"""The command line: arguments to one call, its outcome to text and an exit code."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from . import __version__, commands
from .errors import (
    SCARCE,
    SCARCE_HINT,
    HostError,
    LxcCrError,
    UsageError,
    cancelled,
    exit_codes,
    os_message,
)
from .fault import FAULT_VARIABLE
from .log import Reporter
from .run import hold_standard_descriptors, signals_cancel
from .session import Session


class CommandLine(argparse.ArgumentParser):
    """A parser whose errors are ours, which machines understand as well."""

    def error(self, message: str) -> NoReturn:
        """Raise UsageError."""
        raise UsageError(message, hint=f"`{self.prog} --help` tells how it is called")


def epilog() -> str:
    """The end of the help text: references and exit codes."""
    lines = [f"  {code:>3}  {meaning}" for code, meaning in exit_codes()]
    return "\n".join(
        [
            "an image REF is NAME (its latest), NAME:TAG or NAME@sha256:DIGEST (8 digits or more)",
            "",
            "exit codes:",
            *lines,
        ]
    )


# Options before the command that take the next word.
VALUED = ("-P", "--lxcpath", "--store", "--config")
UNVALUED = ("--json", "--debug")


def command_among(words: Sequence[str]) -> tuple[str, ...]:
    """The module of the command that @words give; all modules when a whole parser has to tell.

    To import and describe each command takes longer than what most of them do.
    """
    rest = iter(words)
    for word in rest:
        if word in VALUED:
            next(rest, None)
        elif word not in UNVALUED:
            found = tuple(name for name in commands.NAMES if name.rstrip("_") == word)
            return found or commands.NAMES
    return commands.NAMES


def parser(names: Sequence[str] = commands.NAMES) -> argparse.ArgumentParser:
    """The whole command line, or that of some commands."""
    common = CommandLine(add_help=False, argument_default=argparse.SUPPRESS)
    add = common.add_argument
    add("-P", "--lxcpath", metavar="DIR", help="where LXC keeps its containers")
    add("--store", metavar="DIR", help="where images lie (default: /var/lib/lxc-cr)")
    add("--config", metavar="FILE", type=Path, help="instead of /etc/lxc-cr.toml")
    add("--json", action="store_true", help="one JSON object per line on stdout")
    add("--debug", action="store_true", help="show every step before it runs")
    top = CommandLine(
        prog="lxc-cr",
        description="Checkpoint running LXC containers and restart them.",
        epilog=epilog(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[common],
    )
    top.add_argument("--version", action="version", version=f"lxc-cr {__version__}")
    places = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name in names:
        command = import_module(f"{commands.__name__}.{name}")
        made = places.add_parser(
            name.rstrip("_"),
            aliases=getattr(command, "ALIASES", ()),
            help=command.HELP,
            description=command.HELP,
            parents=[common],
        )
        command.add_arguments(made)
        made.set_defaults(run=command.run)
    return top


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    hold_standard_descriptors()
    words = sys.argv[1:] if argv is None else argv
    try:
        arguments = parser(command_among(words)).parse_args(words)
    except UsageError as error:
        Reporter(json_lines="--json" in words).error(error)
        return error.exit_code
    given = vars(arguments)
    report = Reporter(
        json_lines=given.get("json", False),
        debug=given.get("debug", False),
        fault=os.environ.get(FAULT_VARIABLE),
    )
    return guarded(lambda: arguments.run(Session(arguments, report)), report)


def guarded(work: Callable[[], int], report: Reporter) -> int:
    """Do @work as root, and turn whatever it raises into a message and an exit code."""
    try:
        with signals_cancel():
            refuse_user()
            code = work()
        report.refuse_unheard()
        return code
    except LxcCrError as error:
        reason = cancelled(error) or error
        report.error(reason)
        return reason.exit_code
    except Exception as error:
        # Said in a form that machines understand as well, and where with --debug.
        if report.debugging:
            import traceback

            traceback.print_exc()
        failure = failure_of(error)
        report.error(failure)
        return failure.exit_code
    finally:
        report.close()


def failure_of(error: Exception) -> LxcCrError:
    """What an exception that nobody has expected says: a limit of this host, else a bug of ours."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in SCARCE):
        text = os_message(error) if isinstance(error, OSError) else os.strerror(errno.ENOMEM)
        return HostError(text, hint=SCARCE_HINT)
    return LxcCrError(
        f"Internal error: {type(error).__name__}: {error}",
        hint="Please report it, with the output of the same command and --debug",
    )


def refuse_user() -> None:
    """Raise HostError unless we are root."""
    if os.geteuid() != 0:
        raise HostError("lxc-cr must run as root", hint="Use sudo")
